// Masks over photos on CUDA: chooses a kernel and its grid. The contract is in mask.h.
#include "mask.h"

#include <cstdint>
#include <limits>

#include <cuda_runtime.h>

#include "../common/check.h"
#include "../common/cuda_check.h"
#include "../common/cuda_launch.h"
#include "blend_cuda.h"

namespace pyxai::cuda {
namespace {

// Whether four neighbours of a row can be read at once, wherever the row starts.
template <DType type> bool reads_whole(const BlendArgs& args, const BlendSource& source) {
    return has_rows_in_place(args, source) &&
           is_aligned(source.data, 4 * sizeof(typename Element<type>::Storage)) &&
           source.image_stride % 4 == 0 && source.row_stride % 4 == 0 &&
           (args.channels_last || source.channel_stride % 4 == 0);
}

// Positions within one row of a source are 32-bit; those of the rows themselves are not.
void check_row(const BlendArgs& args, const BlendSource& source) {
    const std::int64_t last =
        (args.width - 1) * source.column_stride + (args.channels - 1) * source.channel_stride;
    PYXAI_CHECK(last <= std::numeric_limits<int>::max(), "images or background too large");
}

template <DType type> void launch_blend(const BlendArgs& args, BlendParams params, void* stream) {
    params.whole_images = reads_whole<type>(args, args.images);
    params.whole_backgrounds = reads_whole<type>(args, args.backgrounds);
    const bool vectors = params.width % kPixels == 0 &&
                         is_aligned(args.out, kPixels * sizeof(typename Element<type>::Storage));
    const bool background = args.backgrounds.data != nullptr;
    const auto kernel =
        background ? (vectors ? blend_kernel<type, true, true> : blend_kernel<type, true, false>)
                   : (vectors ? blend_kernel<type, false, true> : blend_kernel<type, false, false>);
    const std::int64_t column_tiles = ceil_divide(params.width, kBlockColumns);
    params.thread_rows = rows_of_a_thread(column_tiles, params.height, params.count);
    const dim3 grid = make_grid(
        column_tiles, ceil_divide(params.height, kRowThreads * params.thread_rows), params.count);
    launch("blend_kernel", kernel, grid, dim3(kWarp, kRowThreads), stream, params);
}

} // namespace

void blend(const BlendArgs& args, int device, void* stream) {
    if (args.count == 0 || args.channels == 0 || args.height == 0 || args.width == 0) {
        return;
    }
    // Half of it, so that the columns of the last block can be counted.
    constexpr std::int64_t limit = std::numeric_limits<int>::max() / 2;
    const std::int64_t row_channels = args.channels_last ? args.channels : 1;
    PYXAI_CHECK(args.mask_height > 0 && args.mask_width > 0, "empty mask");
    PYXAI_CHECK(args.mask_height <= limit && args.mask_width <= limit && args.height <= limit &&
                    args.channels <= limit && args.width <= limit / row_channels,
                "mask or image too wide or high");
    check_row(args, args.images);
    check_row(args, args.backgrounds);
    BlendParams params{};
    params.image = args.images;
    params.background = args.backgrounds;
    params.masks = args.masks;
    params.out = args.out;
    params.count = args.count;
    params.planes = static_cast<int>(args.channels / row_channels);
    params.row_channels = static_cast<int>(row_channels);
    params.mask_height = static_cast<int>(args.mask_height);
    params.mask_width = static_cast<int>(args.mask_width);
    params.height = static_cast<int>(args.height);
    params.width = static_cast<int>(args.width * row_channels);
    params.scale_y = static_cast<float>(args.mask_height) / static_cast<float>(args.height);
    params.scale_x = static_cast<float>(args.mask_width) / static_cast<float>(args.width);
    const DeviceGuard guard(device);
    switch (args.dtype) {
    case DType::kFloat32:
        launch_blend<DType::kFloat32>(args, params, stream);
        break;
    case DType::kBFloat16:
        launch_blend<DType::kBFloat16>(args, params, stream);
        break;
    case DType::kFloat16:
        launch_blend<DType::kFloat16>(args, params, stream);
        break;
    }
}

} // namespace pyxai::cuda
