// clang-format off: the lines of the contract are to stay as they are
//
// Windows over a photo: contract of the kernels, for CPU and CUDA.
//
// All pointers are to memory that the caller owns; outputs never alias inputs. There may be no
// boxes. Results depend on neither the number of threads nor the other boxes, bit for bit.
//
//   P       [C, H, W] uint8, float32, bfloat16, float16; any strides
//   boxes   [n, 4] int64, dense: x0, y0, x1, y1, edges in pixels. The CPU kernels want them inside
//           the photo and not empty (survey_boxes); the CUDA kernels move x0, y0 into the photo,
//           then x1, y1 behind them and into it
//   scale, shift  [C] float32
//   Q       [n, C, h, w], or [n, h, w, C] when channels_last, dense; float32, bfloat16, float16
//   scores  [k, n] float32, dense
//   M       [k, H, W] float32, dense
//
// crop:   Q = resize(P[:, y0:y1, x0:x1] * scale + shift), each product and sum rounded to float32,
//         or the sum alone; resized as torch's interpolate(bilinear, align_corners=False) does,
//         first across, then down; not at all where the box has the size of Q, so that infinity
//         stays what it is; elsewhere infinity times a weight of 0 is NaN. Rounded to the dtype of
//         Q, to the nearest, of two as near to the even one.
// heatmap: M = mean of the scores of the boxes that cover a pixel, `fill` where there is none.
//         Sums run in 64-bit integers: scores are multiplied by 2^shift, shift = 61 - bits(n) - e
//         where the greatest magnitude of the map's scores is below 2^e, and rounded. So sums are
//         the same in any order, and on any device. With a score that is not finite the whole map
//         is NaN.
//
// Differentiable in Python only.
// clang-format on
#pragma once

#include <cstdint>

#include "../common/dtype.h"
#include "../common/fields.h"

namespace pyxai {

struct WindowBox {
    std::int64_t x0, y0, x1, y1;
};

// Element (c, y, x) lies at the sum of the indices times the strides, which count elements.
struct WindowPhoto {
    const void* data;
    bool bytes; // uint8; otherwise of this dtype
    DType dtype;
    std::int64_t channel_stride, row_stride, column_stride;

    PYXAI_FIELDS(data, bytes, dtype, channel_stride, row_stride, column_stride)
};

struct CropArgs {
    WindowPhoto photo;
    std::int64_t channels, photo_height, photo_width;
    const WindowBox* boxes;
    std::int64_t count;
    const float* scale; // in host memory, for CUDA too
    const float* shift;
    void* out;
    DType dtype; // of `out`
    bool channels_last;
    std::int64_t height, width;

    PYXAI_FIELDS(photo, channels, photo_height, photo_width, boxes, count, scale, shift, out, dtype,
                 channels_last, height, width)
};

struct HeatmapArgs {
    const float* scores;
    std::int64_t maps; // k
    const WindowBox* boxes;
    std::int64_t count;
    float* out;
    std::int64_t height, width;
    float fill;

    PYXAI_FIELDS(scores, maps, boxes, count, out, height, width, fill)
};

namespace cpu {

struct BoxSurvey {
    std::int64_t first_bad;     // first box that is empty or not inside the photo, or -1
    std::int64_t height, width; // of all boxes, 0 where they differ or there are none
};

BoxSurvey survey_boxes(const WindowBox* boxes, std::int64_t count, std::int64_t photo_height,
                       std::int64_t photo_width);

// Bytes of 64-byte aligned scratch memory that the calls below need for these arguments.
std::int64_t crop_workspace(const CropArgs& args, int num_threads);
std::int64_t heatmap_workspace(const HeatmapArgs& args, int num_threads);

void crop(const CropArgs& args, void* workspace, int num_threads);
void heatmap(const HeatmapArgs& args, void* workspace, int num_threads);

} // namespace cpu

namespace cuda {

// `stream` is a cudaStream_t, `device` the index of the device that the memory lies on. Launches
// only: no allocation, no synchronisation.
constexpr int kMaxChannels = 64;

void crop(const CropArgs& args, int device, void* stream);

void heatmap(const HeatmapArgs& args, int device, void* stream);

} // namespace cuda

} // namespace pyxai
