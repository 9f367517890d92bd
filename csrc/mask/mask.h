// clang-format off: the lines of the contract are to stay as they are
//
// Masks over photos: contract of the kernels, for CPU and CUDA.
//
// All pointers are to memory that the caller owns; outputs never alias inputs. Sizes may be zero:
// then nothing is written. Arithmetic is float32, in an order that depends on neither the number of
// threads nor the batch, so the result is the same for 1 and n threads, bit for bit.
//
//   X      [M, C, H, W] float32, bfloat16, float16; any strides, 0 where values are shared
//   B      the same, or none (zero)
//   masks  [M, h, w] float32, dense; any values, they are not clamped
//   Q      [M, C, H, W], or [M, H, W, C] when channels_last, dense; the dtype of X
//
// blend:  U = masks, resized to [M, H, W] as torch's interpolate(bilinear, align_corners=False)
//         does; V = 1 - U
//         Q = U * X + V * B, the second product rounded first; rounded to the dtype of Q, to the
//         nearest, of two as near to the even one
//         NaN and infinity follow from the arithmetic: 0 * infinity is NaN; where a mask is not
//         finite, the pixels that it reaches are not.
//
// blend_slopes:  from dQ, the gradient of a loss by Q, that by the masks
//         P  = sum over c of dQ * (X - B), rounded to float32                      [M, H, W]
//         dM = the transpose of the resizing, applied to P: first down, then across, [M, h, w]
//         A weight of 0 adds nothing, whatever it is multiplied by.
//
// sum_shown:  from dQ, the gradient by an X that all masks share
//         dX = sum over the masks, in order, of dQ * U; [C, H, W] or [H, W, C] as dQ, dense, rounded
//         to its dtype. Given 1 - masks it is that by a shared B. For an X or B of each mask it is
//         blend with dQ in place of X, and no B.
//
// penalty:  with dx, dy the differences of a cell to the next one across and down, 0 at the border,
//         V = |dx|^beta + |dy|^beta, or, with `root`, (|dx|^beta + |dy|^beta + e^beta)^(1/beta) - e
//         where e = kPenaltySmooth: smooth where neighbours are equal, for beta > 1
//         cost = sum over the cells of variation_weight * V + distance_weight * |1 - M|,
//                divided by h * w when `mean`
//         slopes = the derivatives of the cost by the cells. That of |1 - M| at 1 is that below 1;
//                for beta = 1 that of |dx| at 0 is 0.
//         The cost of a mask that is not finite everywhere is not finite; its slopes mean nothing.
//         beta = 1, 2 and 3 have formulas of their own; for others the powers are good to 1e-6.
//
// step:   a step of Adam, as torch.optim.Adam counts (`step` is 1 at the first), then a clamp
//         m = m + (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2
//         M = clamp(M - lr / (1 - beta1^step) * m / (sqrt(v / (1 - beta2^step)) + eps), 0, 1)
//         in place; NaN stays NaN. The step is a number of the host or lies on the device, where
//         it is only read.
//
// penalized_step:  the costs of the masks as they are, then a step with g + slopes in place of g
// clang-format on
#pragma once

#include <cstdint>

#include "../common/dtype.h"
#include "../common/fields.h"

namespace pyxai {

// A tensor that is read: element (n, c, y, x) lies at the sum of the indices times the strides,
// which count elements and are 0 along axes where all values are the same.
struct BlendSource {
    const void* data; // null: no such tensor
    std::int64_t image_stride, channel_stride, row_stride, column_stride;

    PYXAI_FIELDS(data, image_stride, channel_stride, row_stride, column_stride)
};

struct BlendArgs {
    BlendSource images, backgrounds;
    DType dtype; // of both, and of `out`
    const float* masks;
    void* out;
    bool channels_last; // of `out`
    std::int64_t count; // M
    std::int64_t channels, mask_height, mask_width, height, width;

    PYXAI_FIELDS(images, backgrounds, dtype, masks, out, channels_last, count, channels,
                 mask_height, mask_width, height, width)
};

struct BlendSlopesArgs {
    BlendArgs blend;       // what was blended; `out` is null, `channels_last` that of the gradients
    const void* gradients; // dQ, dense, of the dtype of X
    float* slopes;         // dM [M, h, w]

    PYXAI_FIELDS(blend, gradients, slopes)
};

struct ShownSumArgs {
    BlendArgs blend;       // sizes, masks and `out` [C, H, W]; images and backgrounds are null
    const void* gradients; // dQ, dense

    PYXAI_FIELDS(blend, gradients)
};

// What a difference between neighbours must exceed to count as one, under the root.
constexpr float kPenaltySmooth = 1e-4f;

// On CUDA a mask of at most so many cells is the work of one block; a larger one is summed in
// kPenaltyParts parts.
constexpr std::int64_t kSmallMask = 4096;
constexpr int kPenaltyParts = 16;

struct PenaltyArgs {
    const float* masks; // [M, h, w]
    float* costs;       // [M]
    float* slopes;      // [M, h, w], or null: not wanted
    std::int64_t count, height, width;
    float variation_weight, distance_weight, beta;
    bool root, mean;

    PYXAI_FIELDS(masks, costs, slopes, count, height, width, variation_weight, distance_weight,
                 beta, root, mean)
};

struct StepArgs {
    float* masks;
    const float* gradients;
    float *first, *second;            // m, v
    std::int64_t count;               // of cells
    const std::int64_t* step_address; // where the step lies, or null: it is `step`
    std::int64_t step;
    double learning_rate, beta1, beta2, eps;

    PYXAI_FIELDS(masks, gradients, first, second, count, step_address, step, learning_rate, beta1,
                 beta2, eps)
};

struct PenalizedStepArgs {
    PenaltyArgs penalty; // of the same masks; `slopes` is null
    StepArgs step;

    PYXAI_FIELDS(penalty, step)
};

// Whether a row of the source is a row of the result: neighbours in one are neighbours in the
// other.
static inline bool has_rows_in_place(const BlendArgs& args, const BlendSource& source) {
    const bool columns_fit = source.column_stride == (args.channels_last ? args.channels : 1);
    const bool channels_fit = source.channel_stride == 1 || args.channels == 1;
    return (columns_fit || args.width == 1) && (channels_fit || !args.channels_last);
}

namespace cpu {

// Bytes of 64-byte aligned scratch memory that the call below needs for these sizes.
std::int64_t blend_workspace(const BlendArgs& args, int num_threads);

void blend(const BlendArgs& args, void* workspace, int num_threads);

std::int64_t blend_slopes_workspace(const BlendSlopesArgs& args, int num_threads);

void blend_slopes(const BlendSlopesArgs& args, void* workspace, int num_threads);

std::int64_t sum_shown_workspace(const ShownSumArgs& args, int num_threads);

void sum_shown(const ShownSumArgs& args, void* workspace, int num_threads);

std::int64_t penalty_workspace(const PenaltyArgs& args, int num_threads);

void penalty(const PenaltyArgs& args, void* workspace, int num_threads);

void step(const StepArgs& args, int num_threads);

std::int64_t penalized_step_workspace(const PenalizedStepArgs& args, int num_threads);

void penalized_step(const PenalizedStepArgs& args, void* workspace, int num_threads);

} // namespace cpu

namespace cuda {

// `stream` is a cudaStream_t, `device` the index of the device that the memory lies on. Launches
// only: no allocation, no synchronisation.
void blend(const BlendArgs& args, int device, void* stream);

void blend_slopes(const BlendSlopesArgs& args, int device, void* stream);

void sum_shown(const ShownSumArgs& args, int device, void* stream);

// Bytes of scratch memory; masks of at most kSmallMask cells need none.
std::int64_t penalty_workspace(const PenaltyArgs& args);

void penalty(const PenaltyArgs& args, void* workspace, int device, void* stream);

std::int64_t penalized_step_workspace(const PenalizedStepArgs& args);

void penalized_step(const PenalizedStepArgs& args, void* workspace, int device, void* stream);

void step(const StepArgs& args, int device, void* stream);

} // namespace cuda

} // namespace pyxai
