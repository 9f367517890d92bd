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
// Differentiable in Python only.
// clang-format on
#pragma once

#include <cstdint>

#include "../common/dtype.h"

namespace pyxai {

// A tensor that is read: element (n, c, y, x) lies at the sum of the indices times the strides,
// which count elements and are 0 along axes where all values are the same.
struct BlendSource {
    const void* data; // null: no such tensor
    std::int64_t image_stride, channel_stride, row_stride, column_stride;
};

struct BlendArgs {
    BlendSource images, backgrounds;
    DType dtype; // of both, and of `out`
    const float* masks;
    void* out;
    bool channels_last; // of `out`
    std::int64_t count; // M
    std::int64_t channels, mask_height, mask_width, height, width;
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

} // namespace cpu

namespace cuda {

// `stream` is a cudaStream_t, `device` the index of the device that the memory lies on. Launches
// only: no allocation, no synchronisation.
void blend(const BlendArgs& args, int device, void* stream);

} // namespace cuda

} // namespace pyxai
