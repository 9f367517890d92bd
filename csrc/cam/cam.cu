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
#include "render_cuda.h"

namespace pyxai::cuda {
namespace {

// Blocks of a launch that keep the largest devices busy.
constexpr std::int64_t kProjectBlocks = 256;

// ---- project ----

template <DType type, bool channels_last, int kTargets>
void launch_project_few(ProjectParams params, void* stream) {
    const std::int64_t target_tiles = ceil_divide(params.targets, kTargets);
    while (params.segment_shift < kMaxSegmentShift &&
           std::int64_t{4} << params.segment_shift < params.channels) {
        ++params.segment_shift;
    }
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

template <DType type, bool channels_last>
void launch_project(const ProjectParams& params, void* stream) {
    if (params.targets == 1) {
        launch_project_few<type, channels_last, 1>(params, stream);
    } else if (params.targets <= kFewTargets) {
        launch_project_few<type, channels_last, 4>(params, stream);
    } else {
        const dim3 grid = make_grid(ceil_divide(params.positions, kTile),
                                    ceil_divide(params.targets, kTile), params.images);
        launch("project_many_kernel", project_many_kernel<type, channels_last>, grid,
               dim3(kManyThreads), stream, params);
    }
}

template <DType type>
void launch_project_as(const ProjectArgs& args, ProjectParams params, void* stream) {
    constexpr std::size_t four = 4 * sizeof(typename Element<type>::Storage);
    params.whole = args.channels % 4 == 0 && is_aligned(args.weights, 16) &&
                   (!args.channels_last || is_aligned(args.features, four));
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
    // About eight elements a thread.
    const std::int64_t threads =
        std::min<std::int64_t>(kMaxScalingThreads, ceil_divide(size, 8 * kWarp) * kWarp);
    launch("scaling_kernel", scaling_kernel, make_grid(args.count, 1, 1),
           dim3(static_cast<unsigned>(threads)), stream, args.maps, size, args.relu, args.minmax,
           scaling);
}

template <Picture picture> void launch_picture(RenderParams params, bool vectors, void* stream) {
    const std::int64_t column_tiles = ceil_divide(params.width, kBlockColumns);
    params.thread_rows = rows_of_a_thread(column_tiles, params.height, params.count);
    const dim3 grid = make_grid(
        column_tiles, ceil_divide(params.height, kRowThreads * params.thread_rows), params.count);
    const auto kernel = vectors ? render_kernel<picture, true> : render_kernel<picture, false>;
    launch("render_kernel", kernel, grid, dim3(kWarp, kRowThreads), stream, params);
}

RenderParams render_params(const RenderArgs& args, const float* scaling) {
    constexpr std::int64_t limit = std::numeric_limits<int>::max() / 2;
    PYXAI_CHECK(args.map_height > 0 && args.map_width > 0, "empty map");
    PYXAI_CHECK(args.map_height <= limit && args.map_width <= limit && args.height <= limit &&
                    args.width <= limit,
                "map or picture too wide or high");
    RenderParams params{};
    params.maps = args.maps;
    params.scaling = scaling;
    params.out = args.out;
    params.count = args.count;
    params.map_height = static_cast<int>(args.map_height);
    params.map_width = static_cast<int>(args.map_width);
    params.height = static_cast<int>(args.height);
    params.width = static_cast<int>(args.width);
    params.scale_y = static_cast<float>(args.map_height) / static_cast<float>(args.height);
    params.scale_x = static_cast<float>(args.map_width) / static_cast<float>(args.width);
    params.relu = args.relu;
    return params;
}

} // namespace

void project(const ProjectArgs& args, int device, void* stream) {
    if (args.images == 0 || args.targets == 0 || args.positions == 0) {
        return; // without channels the sums are zero, and are written
    }
    PYXAI_CHECK(args.channels <= std::numeric_limits<int>::max(), "too many channels");
    const DeviceGuard guard(device);
    ProjectParams params{};
    params.features = args.features;
    params.weights = args.weights;
    params.maps = args.maps;
    params.images = args.images;
    params.channels = args.channels;
    params.targets = args.targets;
    params.positions = args.positions;
    params.weights_stride = args.weights_per_image ? args.targets * args.channels : 0;
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

void render(const RenderArgs& args, float* scaling, int device, void* stream) {
    if (is_empty(args)) {
        return;
    }
    const RenderParams params = render_params(args, scaling);
    const DeviceGuard guard(device);
    launch_scaling(args, scaling, stream);
    const bool whole_vectors = args.width % kPixels == 0;
    if (args.out_uint8) {
        launch_picture<Picture::kByte>(params, whole_vectors && is_aligned(args.out, 4), stream);
    } else {
        launch_picture<Picture::kFloat>(params, whole_vectors && is_aligned(args.out, 16), stream);
    }
}

void overlay(const OverlayArgs& args, float* scaling, int device, void* stream) {
    if (is_empty(args.render)) {
        return;
    }
    RenderParams params = render_params(args.render, scaling);
    params.photos = args.photos;
    params.colors = args.colors;
    const DeviceGuard guard(device);
    launch_scaling(args.render, scaling, stream);
    const bool vectors = args.render.width % kPixels == 0 && is_aligned(args.render.out, 4) &&
                         is_aligned(args.photos, 4);
    launch_picture<Picture::kOverlay>(params, vectors, stream);
}

} // namespace pyxai::cuda
