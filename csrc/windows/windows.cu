// Windows over a photo on CUDA: chooses kernels and their grids. The contract is in windows.h.
#include "windows.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#include <cuda_runtime.h>

#include "../common/check.h"
#include "../common/cuda_check.h"
#include "../common/cuda_launch.h"
#include "crop_cuda.h"
#include "heatmap_cuda.h"

namespace pyxai::cuda {
namespace {

// With vectors the lanes of a warp read what lies four elements apart, and more lines of memory
// than neighbours do. So there are vectors where an element of a window is little of the photo.
template <class Source, DType type> auto choose_crop(const CropArgs& args) {
    constexpr std::int64_t most = 2; // bytes
    const std::int64_t step = sizeof(typename Source::Storage) * args.photo.column_stride;
    const bool vectors = step <= most * (args.channels_last ? args.channels : 1) &&
                         args.width % kPixels == 0 &&
                         is_aligned(args.out, kPixels * sizeof(typename Element<type>::Storage));
    return vectors ? crop_kernel<Source, type, true> : crop_kernel<Source, type, false>;
}

template <class Source, DType type>
void launch_crop(const CropArgs& args, CropParams params, void* stream) {
    const auto kernel = choose_crop<Source, type>(args);
    const std::int64_t column_tiles = ceil_divide(params.width, kBlockColumns);
    params.thread_rows = rows_of_a_thread(column_tiles, params.height, params.count);
    const dim3 grid = make_grid(
        column_tiles, ceil_divide(params.height, kRowThreads * params.thread_rows), params.count);
    launch("crop_kernel", kernel, grid, dim3(kWarp, kRowThreads), stream, params);
}

template <class Source>
void launch_from(const CropArgs& args, const CropParams& params, void* stream) {
    switch (args.dtype) {
    case DType::kFloat32:
        return launch_crop<Source, DType::kFloat32>(args, params, stream);
    case DType::kBFloat16:
        return launch_crop<Source, DType::kBFloat16>(args, params, stream);
    case DType::kFloat16:
        return launch_crop<Source, DType::kFloat16>(args, params, stream);
    }
}

// Tiles look at all boxes: high ones less often, low ones keep more multiprocessors busy.
constexpr std::int64_t kEnoughTiles = 1024;
constexpr int kFewestRows = 4;

// Half of the largest, so that the columns of the last block can be counted.
constexpr std::int64_t kLargest = std::numeric_limits<int>::max() / 2;

CropParams crop_params(const CropArgs& args) {
    const std::int64_t row_channels = args.channels_last ? args.channels : 1;
    PYXAI_CHECK(args.channels <= kMaxChannels, "too many channels for CUDA");
    PYXAI_CHECK(args.height <= kLargest && args.width <= kLargest / row_channels &&
                    args.photo_height <= kLargest && args.photo_width <= kLargest,
                "photo or windows too wide or high");
    // Positions within one row are 32-bit; those of the rows themselves are not.
    const std::int64_t last = (args.photo_width - 1) * args.photo.column_stride +
                              (row_channels - 1) * args.photo.channel_stride;
    PYXAI_CHECK(last <= std::numeric_limits<int>::max(), "photo too large");
    CropParams params{};
    params.photo = args.photo.data;
    params.channel_stride = args.photo.channel_stride;
    params.row_stride = args.photo.row_stride;
    params.column_stride = args.photo.column_stride;
    params.photo_height = static_cast<int>(args.photo_height);
    params.photo_width = static_cast<int>(args.photo_width);
    params.boxes = args.boxes;
    params.out = args.out;
    params.count = args.count;
    params.planes = static_cast<int>(args.channels / row_channels);
    params.row_channels = static_cast<int>(row_channels);
    params.height = static_cast<int>(args.height);
    params.width = static_cast<int>(args.width * row_channels);
    params.columns = static_cast<int>(args.width);
    std::copy_n(args.scale, args.channels, params.scale);
    std::copy_n(args.shift, args.channels, params.shift);
    return params;
}

} // namespace

void crop(const CropArgs& args, int device, void* stream) {
    if (args.count == 0) {
        return;
    }
    const CropParams params = crop_params(args);
    const DeviceGuard guard(device);
    if (args.photo.bytes) {
        return launch_from<ByteElement>(args, params, stream);
    }
    switch (args.photo.dtype) {
    case DType::kFloat32:
        return launch_from<Element<DType::kFloat32>>(args, params, stream);
    case DType::kBFloat16:
        return launch_from<Element<DType::kBFloat16>>(args, params, stream);
    case DType::kFloat16:
        return launch_from<Element<DType::kFloat16>>(args, params, stream);
    }
}

void heatmap(const HeatmapArgs& args, int device, void* stream) {
    if (args.maps == 0 || args.height * args.width == 0) {
        return;
    }
    PYXAI_CHECK(args.count <= kLargest, "too many boxes");
    PYXAI_CHECK(args.height <= kLargest && args.width <= kLargest, "map too wide or high");
    HeatmapParams params{};
    params.args = args;
    params.count = static_cast<int>(args.count);
    params.height = static_cast<int>(args.height);
    params.width = static_cast<int>(args.width);
    const std::int64_t column_tiles = ceil_divide(args.width, kHeatmapColumns);
    params.column_tiles = static_cast<int>(column_tiles);
    params.rows = kHeatmapRows;
    while (params.rows > kFewestRows &&
           column_tiles * ceil_divide(args.height, params.rows) * args.maps < kEnoughTiles) {
        params.rows /= 2;
    }
    const bool vectors = args.width % kPixels == 0 && is_aligned(args.out, kPixels * sizeof(float));
    const DeviceGuard guard(device);
    launch("heatmap_kernel", vectors ? heatmap_kernel<true> : heatmap_kernel<false>,
           make_grid(column_tiles * ceil_divide(args.height, params.rows), 1, args.maps),
           dim3(kHeatmapThreads), stream, params);
}

} // namespace pyxai::cuda
