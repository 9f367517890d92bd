// Class activation maps on CUDA: chooses a kernel and its grid. The contract is in cam.h.
//
// Nothing is added atomically and no order of summation depends on the number of images, so a map
// is the same bit for bit whatever batch it comes in, and for both memory layouts of the features.
#include "cam.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#include <cuda_runtime.h>

#include "../common/check.h"
#include "../common/cuda_check.h"
#include "../common/cuda_launch.h"
#include "project_cuda.h"
#include "project_render_cuda.h"
#include "render_cuda.h"

namespace pyxai::cuda {
namespace {

// Blocks of a launch that keep the largest devices busy.
constexpr std::int64_t kProjectBlocks = 256;

// ---- project ----

int segment_shift(std::int64_t channels) {
    int shift = 0;
    while (shift < kMaxSegmentShift && std::int64_t{4} << shift < channels) {
        ++shift;
    }
    return shift;
}

template <DType type, bool channels_last, int kTargets>
void launch_project_few(ProjectParams params, void* stream) {
    const std::int64_t target_tiles = ceil_divide(params.targets, kTargets);
    params.segment_shift = segment_shift(params.channels);
    // Wide tiles read memory best, narrow ones make more blocks; the sums are the same.
    params.tile_shift = kMaxTileShift;
    while (params.tile_shift > kMinTileShift &&
           ceil_divide(params.positions, 1 << params.tile_shift) * target_tiles * params.images <
               kProjectBlocks) {
        --params.tile_shift;
    }
    const dim3 grid = make_grid(ceil_divide(params.positions, 1 << params.tile_shift), target_tiles,
                                params.images);
    launch("project_few_kernel", project_few_kernel<type, channels_last, kTargets>, grid,
           dim3(kFewThreads), stream, params);
}

template <DType type, bool channels_last, int positions>
void launch_project_many(const ProjectParams& params, void* stream) {
    const dim3 grid = make_grid(ceil_divide(params.positions, positions),
                                ceil_divide(params.targets, kTile), params.images);
    launch("project_many_kernel", project_many_kernel<type, channels_last, positions>, grid,
           dim3(Tiles<positions>::kThreads), stream, params);
}

template <DType type, bool channels_last>
void launch_project(const ProjectParams& params, void* stream) {
    if (params.targets == 1) {
        launch_project_few<type, channels_last, 1>(params, stream);
    } else if (params.targets <= kFewTargets) {
        launch_project_few<type, channels_last, 4>(params, stream);
    } else {
        constexpr int narrow = 16, wide = 32;
        const std::int64_t target_tiles = ceil_divide(params.targets, kTile);
        if (ceil_divide(params.positions, wide) * target_tiles * params.images < kProjectBlocks) {
            launch_project_many<type, channels_last, narrow>(params, stream);
        } else {
            launch_project_many<type, channels_last, wide>(params, stream);
        }
    }
}

// See read_channels.
template <DType type> bool reads_whole(const ProjectArgs& args) {
    constexpr std::size_t four = 4 * sizeof(typename Element<type>::Storage);
    return args.channels % 4 == 0 && is_aligned(args.weights, 16) &&
           (!args.channels_last || is_aligned(args.features, four));
}

template <DType type>
void launch_project_as(const ProjectArgs& args, ProjectParams params, void* stream) {
    params.whole = reads_whole<type>(args);
    if (args.channels_last) {
        launch_project<type, true>(params, stream);
    } else {
        launch_project<type, false>(params, stream);
    }
}

// ---- render ----

bool is_empty(const RenderArgs& args) {
    return args.count == 0 || args.height == 0 || args.width == 0;
}

void launch_scaling(const RenderArgs& args, float* scaling, void* stream) {
    const std::int64_t size = args.map_height * args.map_width;
    unsigned threads = kWarp;
    while (threads < kMaxScalingThreads && std::int64_t{8} * threads < size) {
        threads *= 2;
    }
    launch("scaling_kernel", scaling_kernel, make_grid(args.count, 1, 1), dim3(threads), stream,
           args.maps, size, args.relu, args.minmax, scaling);
}

constexpr int kMostRows = 16; // of a thread: each block scales a small map anew

template <Picture picture, bool small>
void launch_picture(RenderParams params, bool vectors, void* stream) {
    const std::int64_t column_tiles = ceil_divide(params.width, kBlockColumns);
    params.thread_rows = rows_of_a_thread(column_tiles, params.height, params.count, kMostRows);
    const dim3 grid = make_grid(
        column_tiles, ceil_divide(params.height, kRowThreads * params.thread_rows), params.count);
    const auto kernel =
        vectors ? render_kernel<picture, true, small> : render_kernel<picture, false, small>;
    launch("render_kernel", kernel, grid, dim3(kWarp, kRowThreads), stream, params);
}

bool has_small_maps(const RenderArgs& args) {
    return args.map_height * args.map_width <= kSmallMap;
}

template <Picture picture>
void launch_rendering(const RenderArgs& args, RenderParams params, void* workspace, bool vectors,
                      void* stream) {
    if (has_small_maps(args)) {
        launch_picture<picture, true>(params, vectors, stream);
    } else {
        float* const scaling = static_cast<float*>(workspace);
        launch_scaling(args, scaling, stream);
        params.scaling = scaling;
        launch_picture<picture, false>(params, vectors, stream);
    }
}

RenderParams render_params(const RenderArgs& args) {
    constexpr std::int64_t limit = std::numeric_limits<int>::max() / 2;
    PYXAI_CHECK(args.map_height > 0 && args.map_width > 0, "empty map");
    PYXAI_CHECK(args.map_height <= limit && args.map_width <= limit && args.height <= limit &&
                    args.width <= limit,
                "map or picture too wide or high");
    RenderParams params{};
    params.maps = args.maps;
    params.out = args.out;
    params.count = args.count;
    params.map_height = static_cast<int>(args.map_height);
    params.map_width = static_cast<int>(args.map_width);
    params.height = static_cast<int>(args.height);
    params.width = static_cast<int>(args.width);
    params.scale_y = static_cast<float>(args.map_height) / static_cast<float>(args.height);
    params.scale_x = static_cast<float>(args.map_width) / static_cast<float>(args.width);
    params.relu = args.relu;
    params.minmax = args.minmax;
    return params;
}

ProjectParams project_params(const ProjectArgs& args) {
    PYXAI_CHECK(args.channels <= std::numeric_limits<int>::max(), "too many channels");
    ProjectParams params{};
    params.features = args.features;
    params.weights = args.weights;
    params.maps = args.maps;
    params.images = args.images;
    params.channels = args.channels;
    params.targets = args.targets;
    params.positions = args.positions;
    params.weights_stride = args.weights_per_image ? args.targets * args.channels : 0;
    return params;
}

bool is_empty(const ProjectArgs& args) {
    return args.images == 0 || args.targets == 0 || args.positions == 0;
}

bool writes_vectors(const RenderArgs& args) {
    return args.width % kPixels == 0 && is_aligned(args.out, args.out_uint8 ? 4 : 16);
}

// ---- both in one launch ----

template <DType type, bool channels_last, Picture picture>
bool launch_together_as(ProjectParams project, const RenderParams& render, int device,
                        void* stream) {
    const auto kernel = project_render_kernel<type, channels_last, picture>;
    int blocks = 1; // of an image
    while (blocks < kMaxCluster && blocks * project.images < kProjectBlocks) {
        blocks *= 2;
    }
    if (blocks > 1 && !knows_clusters(reinterpret_cast<const void*>(kernel), device)) {
        return false;
    }
    project.segment_shift = segment_shift(project.channels);
    project.tile_shift = kMaxTileShift;
    while (project.tile_shift > kMinTileShift &&
           ceil_divide(project.positions, 1 << project.tile_shift) < blocks) {
        --project.tile_shift;
    }
    launch_clusters("project_render_kernel", kernel, make_grid(blocks, 1, project.images),
                    dim3(kFewThreads), blocks, stream, project, render);
    return true;
}

template <DType type, bool channels_last>
bool launch_together(const ProjectParams& project, const RenderArgs& args,
                     const RenderParams& render, int device, void* stream) {
    return args.out_uint8 ? launch_together_as<type, channels_last, Picture::kByte>(project, render,
                                                                                    device, stream)
                          : launch_together_as<type, channels_last, Picture::kFloat>(
                                project, render, device, stream);
}

// False where nothing was launched: two launches are to do it.
template <DType type>
bool launch_together(const ProjectArgs& project, const RenderArgs& render, int device,
                     void* stream) {
    const RenderParams picture = render_params(render);
    ProjectParams params = project_params(project);
    params.whole = reads_whole<type>(project);
    return project.channels_last
               ? launch_together<type, true>(params, render, picture, device, stream)
               : launch_together<type, false>(params, render, picture, device, stream);
}

bool launch_together(const ProjectArgs& project, const RenderArgs& render, int device,
                     void* stream) {
    switch (project.features_dtype) {
    case DType::kFloat32:
        return launch_together<DType::kFloat32>(project, render, device, stream);
    case DType::kBFloat16:
        return launch_together<DType::kBFloat16>(project, render, device, stream);
    case DType::kFloat16:
        return launch_together<DType::kFloat16>(project, render, device, stream);
    }
    return false;
}

} // namespace

void project(const ProjectArgs& args, int device, void* stream) {
    if (is_empty(args)) {
        return; // without channels the sums are zero, and are written
    }
    const ProjectParams params = project_params(args);
    const DeviceGuard guard(device);
    switch (args.features_dtype) {
    case DType::kFloat32:
        launch_project_as<DType::kFloat32>(args, params, stream);
        break;
    case DType::kBFloat16:
        launch_project_as<DType::kBFloat16>(args, params, stream);
        break;
    case DType::kFloat16:
        launch_project_as<DType::kFloat16>(args, params, stream);
        break;
    }
}

std::int64_t render_workspace(const RenderArgs& args) {
    return is_empty(args) || has_small_maps(args) ? 0 : args.count * 2 * sizeof(float);
}

std::int64_t project_render_workspace(const ProjectRenderArgs& args) {
    return render_workspace(args.render);
}

std::int64_t overlay_workspace(const OverlayArgs& args) {
    return render_workspace(args.render);
}

void render(const RenderArgs& args, void* workspace, int device, void* stream) {
    if (is_empty(args)) {
        return;
    }
    const RenderParams params = render_params(args);
    const DeviceGuard guard(device);
    if (args.out_uint8) {
        launch_rendering<Picture::kByte>(args, params, workspace, writes_vectors(args), stream);
    } else {
        launch_rendering<Picture::kFloat>(args, params, workspace, writes_vectors(args), stream);
    }
}

void project_render(const ProjectRenderArgs& args, void* workspace, int device, void* stream) {
    if (args.project.targets == 1 && !is_empty(args.project) && !is_empty(args.render) &&
        has_small_maps(args.render) && writes_vectors(args.render)) {
        const DeviceGuard guard(device);
        if (launch_together(args.project, args.render, device, stream)) {
            return;
        }
    }
    project(args.project, device, stream);
    render(args.render, workspace, device, stream);
}

void overlay(const OverlayArgs& args, void* workspace, int device, void* stream) {
    if (is_empty(args.render)) {
        return;
    }
    RenderParams params = render_params(args.render);
    params.photos = args.photos;
    params.colors = args.colors;
    const DeviceGuard guard(device);
    launch_rendering<Picture::kOverlay>(args.render, params, workspace,
                                        writes_vectors(args.render) && is_aligned(args.photos, 4),
                                        stream);
}

} // namespace pyxai::cuda
