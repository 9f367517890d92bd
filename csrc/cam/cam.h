// clang-format off: the lines of the contract are to stay as they are
//
// Class activation maps: contract of the kernels, for CPU and CUDA.
//
// All pointers are to dense memory that the caller owns; outputs never alias inputs. Sizes may be
// zero: then nothing is written (but zeros for features without channels). Sums run in float32 in
// an order that does not depend on the number of threads, so the result is the same for 1 and n
// threads, bit for bit.
//
//   features  [N, C, P], or [N, P, C] when channels_last; P = h * w; float32, bfloat16, float16
//   weights   [Nw, T, C] float32; Nw = 1 (shared by all images) or N
//   maps      [M, h, w] float32, M = N * T
//
// project:  maps[n, t, p] = sum over c of weights[n, t, c] * features[n, c, p]
// render:   u = max(map, 0) if relu, else map
//           v = (u - min u) / (max u - min u) over each map if minmax, else u
//           out[M, H, W] = v, resized as torch's interpolate(bilinear, align_corners=False) does
//           uint8: round(255 * out), out clamped to [0, 1]
//           A map that is constant (its range is below the smallest normal float) becomes 0; one
//           that holds a NaN or an infinity, before the ReLU, becomes NaN throughout (uint8: 0).
// overlay:  index = the uint8 rendering; (r, g, b, a) = colors[index], b(lend) = a + (a >> 7)
//           out[N, H, W, 3] = (photo * (256 - b) + color * b + 128) >> 8
//
// Differentiable in Python only (project, and render to float32).
// clang-format on
#pragma once

#include <cstdint>

#include "../common/dtype.h"
#include "../common/fields.h"

namespace pyxai {

// On CUDA a block that renders a map of at most so many cells scales it by itself.
constexpr std::int64_t kSmallMap = 1024;

struct ProjectArgs {
    const void* features;
    DType features_dtype;
    bool channels_last;
    const float* weights;
    bool weights_per_image; // Nw == N
    float* maps;            // output [N, T, P]
    std::int64_t images, channels, targets, positions;

    PYXAI_FIELDS(features, features_dtype, channels_last, weights, weights_per_image, maps, images,
                 channels, targets, positions)
};

struct RenderArgs {
    const float* maps;
    std::int64_t count; // M
    std::int64_t map_height, map_width, height, width;
    bool relu, minmax;
    void* out; // float or std::uint8_t
    bool out_uint8;

    PYXAI_FIELDS(maps, count, map_height, map_width, height, width, relu, minmax, out, out_uint8)
};

struct ProjectRenderArgs {
    ProjectArgs project;
    RenderArgs render; // of the maps that are projected

    PYXAI_FIELDS(project, render)
};

struct OverlayArgs {
    RenderArgs render;          // out is the picture, out_uint8 is set
    const std::uint8_t* photos; // [N, H, W, 3]
    const std::uint8_t* colors; // [256, 4]: r, g, b, a

    PYXAI_FIELDS(render, photos, colors)
};

namespace cpu {

// Bytes of 64-byte aligned scratch memory that the calls below need for these sizes.
std::int64_t project_workspace(const ProjectArgs& args, int num_threads);
std::int64_t render_workspace(const RenderArgs& args, int num_threads);
std::int64_t project_render_workspace(const ProjectRenderArgs& args, int num_threads);
std::int64_t overlay_workspace(const OverlayArgs& args, int num_threads);

void project(const ProjectArgs& args, void* workspace, int num_threads);
void render(const RenderArgs& args, void* workspace, int num_threads);
// project into args.maps, then render from it. With one target each map is rendered while it is
// still in the cache of the thread that made it.
void project_render(const ProjectRenderArgs& args, void* workspace, int num_threads);
void overlay(const OverlayArgs& args, void* workspace, int num_threads);

} // namespace cpu

namespace cuda {

// Bytes of scratch memory: [M, 2] float32 for the offset and factor of each map; maps of at most
// kSmallMap cells need none.
std::int64_t render_workspace(const RenderArgs& args);
std::int64_t project_render_workspace(const ProjectRenderArgs& args);
std::int64_t overlay_workspace(const OverlayArgs& args);

// `stream` is a cudaStream_t, `device` the index of the device that the memory lies on. Launches
// only: no allocation, no synchronisation.
void project(const ProjectArgs& args, int device, void* stream);
void render(const RenderArgs& args, void* workspace, int device, void* stream);
// project into args.maps, then render from it: one launch where the maps are small and one each.
void project_render(const ProjectRenderArgs& args, void* workspace, int device, void* stream);
void overlay(const OverlayArgs& args, void* workspace, int device, void* stream);

} // namespace cuda

} // namespace pyxai
