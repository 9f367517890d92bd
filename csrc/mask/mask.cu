// Masks over photos on CUDA: chooses a kernel and its grid. The contract is in mask.h.
#include "mask.h"

#include <cstdint>
#include <limits>

#include <cuda_runtime.h>

#include "../common/check.h"
#include "../common/cuda_check.h"
#include "../common/cuda_launch.h"
#include "blend_cuda.h"
#include "learn_cuda.h"
#include "slopes_cuda.h"

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

bool has_pixels(const BlendArgs& args) {
    return args.channels > 0 && args.height > 0 && args.width > 0;
}

void check_sizes(const BlendArgs& args) {
    // Half of it, so that the columns of the last block can be counted.
    constexpr std::int64_t limit = std::numeric_limits<int>::max() / 2;
    const std::int64_t row_channels = args.channels_last ? args.channels : 1;
    PYXAI_CHECK(args.mask_height > 0 && args.mask_width > 0, "empty mask");
    PYXAI_CHECK(args.mask_height <= limit && args.mask_width <= limit && args.height <= limit &&
                    args.channels <= limit && args.width <= limit / row_channels,
                "mask or image too wide or high");
}

void clear(void* to, std::int64_t bytes, void* stream) {
    check(
        cudaMemsetAsync(to, 0, static_cast<std::size_t>(bytes), static_cast<cudaStream_t>(stream)),
        "cudaMemsetAsync");
}

template <DType type> void launch_slopes(const BlendArgs& args, SlopeParams params, void* stream) {
    params.whole_images = reads_whole<type>(args, args.images);
    params.whole_backgrounds = reads_whole<type>(args, args.backgrounds);
    const bool vectors = !args.channels_last && args.width % kPixels == 0 &&
                         reads_whole<type>(args, params.gradients);
    const bool background = args.backgrounds.data != nullptr;
    const auto kernel =
        background
            ? (vectors ? slopes_kernel<type, true, true> : slopes_kernel<type, true, false>)
            : (vectors ? slopes_kernel<type, false, true> : slopes_kernel<type, false, false>);
    const dim3 grid =
        make_grid(ceil_divide(params.mask_width, kSlopeThreads), params.mask_height, params.count);
    launch("slopes_kernel", kernel, grid, dim3(kWarp, kRowThreads), stream, params);
}

template <DType type> void launch_shown_sum(const ShownSumParams& params, void* stream) {
    const dim3 grid =
        make_grid(ceil_divide(params.width, kSlopeThreads), params.height, params.planes);
    launch("shown_sum_kernel", shown_sum_kernel<type>, grid, dim3(kSlopeThreads), stream, params);
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

bool is_small(const PenaltyArgs& args) {
    return args.height * args.width <= kSmallMask;
}

PenaltyParams penalty_params(const PenaltyArgs& args, float* partials) {
    const std::int64_t cells = args.height * args.width;
    PYXAI_CHECK(cells <= std::numeric_limits<int>::max(), "mask too large");
    const float divisor = args.mean && cells > 0 ? static_cast<float>(cells) : 1.0f;
    PenaltyParams params{};
    params.masks = args.masks;
    params.slopes = args.slopes;
    params.partials = partials;
    params.costs = args.costs;
    params.count = args.count;
    params.height = static_cast<int>(args.height);
    params.width = static_cast<int>(args.width);
    params.rough = args.variation_weight / divisor;
    params.far = args.distance_weight / divisor;
    params.beta = args.beta;
    params.root = args.root;
    return params;
}

// `slopes` are added to the gradients; null: none.
void launch_step(const StepArgs& args, const float* slopes, void* stream) {
    constexpr std::int64_t most_blocks = 4096; // beyond, a thread steps several cells
    const std::int64_t blocks = std::min(ceil_divide(args.count, kCellThreads), most_blocks);
    launch("step_kernel", step_kernel, make_grid(blocks, 1, 1), dim3(kCellThreads), stream, args,
           slopes);
}

template <Learning learning>
void launch_small_masks(const PenaltyParams& params, const StepArgs& step, void* stream) {
    launch("small_mask_kernel", small_mask_kernel<learning>, make_grid(params.count, 1, 1),
           dim3(kCellThreads), stream, params, step);
}

} // namespace

void blend(const BlendArgs& args, int device, void* stream) {
    if (args.count == 0 || !has_pixels(args)) {
        return;
    }
    const std::int64_t row_channels = args.channels_last ? args.channels : 1;
    check_sizes(args);
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

void blend_slopes(const BlendSlopesArgs& args, int device, void* stream) {
    const BlendArgs& blend = args.blend;
    const std::int64_t cells = blend.count * blend.mask_height * blend.mask_width;
    if (cells == 0) {
        return;
    }
    const DeviceGuard guard(device);
    if (!has_pixels(blend)) {
        clear(args.slopes, cells * std::int64_t{sizeof(float)}, stream);
        return;
    }
    check_sizes(blend);
    check_row(blend, blend.images);
    check_row(blend, blend.backgrounds);
    SlopeParams params{};
    const std::int64_t plane = blend.height * blend.width, image = blend.channels * plane;
    params.gradients =
        blend.channels_last
            ? BlendSource{args.gradients, image, 1, blend.width * blend.channels, blend.channels}
            : BlendSource{args.gradients, image, plane, blend.width, 1};
    params.images = blend.images;
    params.backgrounds = blend.backgrounds;
    params.slopes = args.slopes;
    params.count = blend.count;
    params.channels = static_cast<int>(blend.channels);
    params.mask_height = static_cast<int>(blend.mask_height);
    params.mask_width = static_cast<int>(blend.mask_width);
    params.height = static_cast<int>(blend.height);
    params.width = static_cast<int>(blend.width);
    params.scale_y = static_cast<float>(blend.mask_height) / static_cast<float>(blend.height);
    params.scale_x = static_cast<float>(blend.mask_width) / static_cast<float>(blend.width);
    params.inverse_y = static_cast<double>(blend.height) / static_cast<double>(blend.mask_height);
    params.inverse_x = static_cast<double>(blend.width) / static_cast<double>(blend.mask_width);
    switch (blend.dtype) {
    case DType::kFloat32:
        return launch_slopes<DType::kFloat32>(blend, params, stream);
    case DType::kBFloat16:
        return launch_slopes<DType::kBFloat16>(blend, params, stream);
    case DType::kFloat16:
        return launch_slopes<DType::kFloat16>(blend, params, stream);
    }
}

void sum_shown(const ShownSumArgs& args, int device, void* stream) {
    const BlendArgs& blend = args.blend;
    if (!has_pixels(blend)) {
        return;
    }
    check_sizes(blend);
    const std::int64_t row_channels = blend.channels_last ? blend.channels : 1;
    ShownSumParams params{};
    params.gradients = args.gradients;
    params.masks = blend.masks;
    params.out = blend.out;
    params.count = blend.count;
    params.planes = static_cast<int>(blend.channels / row_channels);
    params.row_channels = static_cast<int>(row_channels);
    params.mask_height = static_cast<int>(blend.mask_height);
    params.mask_width = static_cast<int>(blend.mask_width);
    params.height = static_cast<int>(blend.height);
    params.width = static_cast<int>(blend.width * row_channels);
    params.scale_y = static_cast<float>(blend.mask_height) / static_cast<float>(blend.height);
    params.scale_x = static_cast<float>(blend.mask_width) / static_cast<float>(blend.width);
    const DeviceGuard guard(device);
    switch (blend.dtype) {
    case DType::kFloat32:
        return launch_shown_sum<DType::kFloat32>(params, stream);
    case DType::kBFloat16:
        return launch_shown_sum<DType::kBFloat16>(params, stream);
    case DType::kFloat16:
        return launch_shown_sum<DType::kFloat16>(params, stream);
    }
}

// [M, kPenaltyParts] for the costs of parts.
std::int64_t penalty_workspace(const PenaltyArgs& args) {
    return is_small(args) ? 0 : args.count * kPenaltyParts * std::int64_t{sizeof(float)};
}

void penalty(const PenaltyArgs& args, void* workspace, int device, void* stream) {
    if (args.count == 0) {
        return;
    }
    float* const partials = static_cast<float*>(workspace);
    const PenaltyParams params = penalty_params(args, partials);
    const DeviceGuard guard(device);
    if (is_small(args)) {
        launch_small_masks<Learning::kPenalty>(params, StepArgs{}, stream);
        return;
    }
    launch("penalty_kernel", penalty_kernel, make_grid(kPenaltyParts, 1, args.count),
           dim3(kCellThreads), stream, params);
    launch("penalty_sum_kernel", penalty_sum_kernel,
           make_grid(ceil_divide(args.count, kCellThreads), 1, 1), dim3(kCellThreads), stream,
           static_cast<const float*>(partials), args.costs, args.count);
}

// The slopes behind what the penalty needs.
std::int64_t penalized_step_workspace(const PenalizedStepArgs& args) {
    const std::int64_t slopes = args.step.count * std::int64_t{sizeof(float)};
    return is_small(args.penalty) ? 0 : penalty_workspace(args.penalty) + slopes;
}

void penalized_step(const PenalizedStepArgs& args, void* workspace, int device, void* stream) {
    if (args.penalty.count == 0) {
        return;
    }
    const DeviceGuard guard(device);
    PenaltyArgs penalty_args = args.penalty;
    if (is_small(penalty_args)) {
        launch_small_masks<Learning::kStep>(penalty_params(penalty_args, nullptr), args.step,
                                            stream);
        return;
    }
    penalty_args.slopes = static_cast<float*>(workspace) + penalty_args.count * kPenaltyParts;
    penalty(penalty_args, workspace, device, stream);
    launch_step(args.step, penalty_args.slopes, stream);
}

void step(const StepArgs& args, int device, void* stream) {
    if (args.count == 0) {
        return;
    }
    const DeviceGuard guard(device);
    launch_step(args, nullptr, stream);
}

} // namespace pyxai::cuda
