// Blending of photos and backgrounds under masks, the device side; included by mask.cu alone.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "../common/bilinear.h"
#include "../common/cuda_launch.h"
#include "../common/element_cuda.h"
#include "mask.h"

namespace pyxai::cuda {
namespace {

// A row of the result holds the elements of one channel, and each channel is a plane of its own;
// when channels come last, it holds all channels, and there is one plane.
struct BlendParams {
    BlendSource image, background;
    const float* masks; // [M, h, w]
    void* out;          // [M, planes, height, width]
    std::int64_t count;
    int planes, row_channels; // one of them is 1
    int mask_height, mask_width, height, width;
    float scale_y, scale_x;               // source size / target size
    bool whole_images, whole_backgrounds; // four neighbours lie aligned for one vector load
    int thread_rows;                      // neighbouring rows that a thread writes
};

constexpr int kBlendThreads = kWarp * kRowThreads;

// The elements of a thread in a row of a source, relative to the start of the row.
struct SourceColumns {
    int offset[kPixels];
};

// The host has checked that it fits.
__device__ inline int offset_in_row(const BlendSource& source, int column, int channel) {
    return static_cast<int>(column * source.column_stride + channel * source.channel_stride);
}

__device__ inline void interpolate_row(const float* row, const Columns& columns,
                                       float (&values)[kPixels]) {
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
        const float low = __ldg(row + columns.low[i]);
        const float high = __ldg(row + columns.high[i]);
        values[i] = fmaf(columns.weight[i], high - low, low);
    }
}

template <DType type>
__device__ inline void read_elements(const typename Element<type>::Storage* row,
                                     const SourceColumns& columns, bool whole,
                                     float (&values)[kPixels]) {
    using E = Element<type>;
    if (whole) {
        const auto four = read_four(row + columns.offset[0]);
        values[0] = E::widen(four.x);
        values[1] = E::widen(four.y);
        values[2] = E::widen(four.z);
        values[3] = E::widen(four.w);
    } else {
#pragma unroll
        for (int i = 0; i < kPixels; ++i) {
            values[i] = E::widen(__ldg(row + columns.offset[i]));
        }
    }
}

// Rows [begin, end) under one mask at the thread's columns, the first of which is `x`. The mask is
// interpolated once for all planes; its source rows stay in registers while they serve.
template <DType type, bool has_background, bool vectors>
__device__ inline void
blend_rows(const BlendParams& params, const Columns& columns, const SourceColumns& image_columns,
           const SourceColumns& background_columns, std::int64_t index, int x, int begin, int end) {
    using Storage = typename Element<type>::Storage;
    const std::int64_t mask_width = params.mask_width, height = params.height;
    const float* mask = params.masks + index * params.mask_height * mask_width;
    const Storage* images =
        static_cast<const Storage*>(params.image.data) + index * params.image.image_stride;
    const Storage* backgrounds = static_cast<const Storage*>(params.background.data);
    if constexpr (has_background) {
        backgrounds += index * params.background.image_stride;
    }
    Storage* out =
        static_cast<Storage*>(params.out) + index * params.planes * height * params.width + x;
    const int count = (params.width - x + kWarp - 1) / kWarp; // of elements a warp apart
    float upper[kPixels], lower[kPixels];
    int held = -1; // source row in `upper`
#pragma unroll 1
    for (int y = begin; y < end; ++y) {
        const Tap tap = bilinear_tap(y, params.mask_height, params.scale_y);
        if (tap.low != held) {
            interpolate_row(mask + tap.low * mask_width, columns, upper);
            interpolate_row(mask + tap.high * mask_width, columns, lower);
            held = tap.low;
        }
        float masks[kPixels];
#pragma unroll
        for (int i = 0; i < kPixels; ++i) {
            masks[i] = fmaf(tap.weight, lower[i] - upper[i], upper[i]);
        }
        const Storage* image = images + y * params.image.row_stride;
        const Storage* background = backgrounds;
        if constexpr (has_background) {
            background += y * params.background.row_stride;
        }
        // Registers for more at once would cost more than they hide.
#pragma unroll 1
        for (int plane = 0; plane < params.planes; ++plane) {
            float values[kPixels];
            read_elements<type>(image, image_columns, params.whole_images && vectors, values);
            if constexpr (has_background) {
                float others[kPixels];
                read_elements<type>(background, background_columns,
                                    params.whole_backgrounds && vectors, others);
#pragma unroll
                for (int i = 0; i < kPixels; ++i) {
                    values[i] = fmaf(masks[i], values[i], __fmul_rn(1.0f - masks[i], others[i]));
                }
                background += params.background.channel_stride;
            } else {
#pragma unroll
                for (int i = 0; i < kPixels; ++i) {
                    values[i] *= masks[i];
                }
            }
            image += params.image.channel_stride;
            write_elements<type, vectors>(out + (plane * height + y) * params.width, count, values);
        }
    }
}

// grid: (tiles of columns, tiles of rows, M); block: (kWarp, kRowThreads).
template <DType type, bool has_background, bool vectors>
__global__ void __launch_bounds__(kBlendThreads) blend_kernel(const BlendParams params) {
    const int x = blockIdx.x * kBlockColumns + threadIdx.x * (vectors ? kPixels : 1);
    if (x >= params.width) {
        return;
    }
    Columns columns;
    SourceColumns image_columns, background_columns;
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
        // Elements beyond the row are read where the last one lies, and not written.
        const int element = min(x + i * (vectors ? 1 : kWarp), params.width - 1);
        const int column = element / params.row_channels;
        const int channel = element % params.row_channels;
        const Tap tap = bilinear_tap(column, params.mask_width, params.scale_x);
        columns.low[i] = tap.low;
        columns.high[i] = tap.high;
        columns.weight[i] = tap.weight;
        image_columns.offset[i] = offset_in_row(params.image, column, channel);
        background_columns.offset[i] = offset_in_row(params.background, column, channel);
    }
    const int tile_rows = kRowThreads * params.thread_rows;
    for (std::int64_t index = blockIdx.z; index < params.count; index += gridDim.z) {
        for (std::int64_t tile = std::int64_t{tile_rows} * blockIdx.y; tile < params.height;
             tile += std::int64_t{tile_rows} * gridDim.y) {
            const std::int64_t begin = tile + threadIdx.y * params.thread_rows;
            const std::int64_t end = min(begin + params.thread_rows, std::int64_t{params.height});
            if (begin < end) {
                blend_rows<type, has_background, vectors>(
                    params, columns, image_columns, background_columns, index, x,
                    static_cast<int>(begin), static_cast<int>(end));
            }
        }
    }
}

} // namespace
} // namespace pyxai::cuda
