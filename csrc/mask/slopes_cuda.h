// Gradients of blending by the masks, and by photos that masks share, the device side; included by
// mask.cu alone.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "../common/bilinear.h"
#include "../common/cuda_launch.h"
#include "../common/element_cuda.h"
#include "blend_cuda.h"
#include "mask.h"

namespace pyxai::cuda {
namespace {

constexpr int kSlopeThreads = kWarp * kRowThreads;
constexpr int kSlopeBlocks = 7; // of a multiprocessor; for 8 registers go to memory on sm_80

struct SlopeParams {
    BlendSource gradients, images, backgrounds;
    float* slopes; // [M, h, w]
    std::int64_t count;
    int channels, mask_height, mask_width, height, width;
    float scale_y, scale_x;               // source size / target size
    double inverse_y, inverse_x;          // the other way round
    bool whole_images, whole_backgrounds; // see BlendParams
};

// Targets that may lie on either side of source `index`: [begin, end), with room for rounding.
__device__ inline void find_targets(int index, int sources, int targets, double inverse, int& begin,
                                    int& end) {
    const double low = (index - 0.5) * inverse - 0.5, high = (index + 1.5) * inverse - 0.5;
    const double margin = 2.0 + 1e-6 * targets;
    begin = index == 0 ? 0 : static_cast<int>(fmax(0.0, floor(low - margin)));
    end = index == sources - 1
              ? targets
              : static_cast<int>(fmin(static_cast<double>(targets), ceil(high + margin)));
}

// What target `tap` gets from source `index`.
__device__ inline float share(const Tap& tap, int index) {
    return (tap.low == index ? 1.0f - tap.weight : 0.0f) + (tap.high == index ? tap.weight : 0.0f);
}

// A picture that is read, at the columns of a thread.
template <DType type> struct SlopeSource {
    const typename Element<type>::Storage* data; // of the mask, or null
    std::int64_t channel_stride, row_stride;
    SourceColumns columns;
    bool whole;

    __device__ SlopeSource(const BlendSource& source, std::int64_t m, int x, int step, int width,
                           bool whole)
        : data(static_cast<const typename Element<type>::Storage*>(source.data) +
               m * source.image_stride),
          channel_stride(source.channel_stride), row_stride(source.row_stride), whole(whole) {
#pragma unroll
        for (int i = 0; i < kPixels; ++i) {
            columns.offset[i] = offset_in_row(source, min(x + i * step, width - 1), 0);
        }
    }

    __device__ void read(int c, int y, float (&values)[kPixels]) const {
        read_elements<type>(data + c * channel_stride + y * row_stride, columns, whole, values);
    }
};

// The columns of a thread, the first of which is `x`, summed over channels and over its share of
// the rows that reach a row of the mask.
template <DType type, bool has_background, bool vectors>
__device__ inline void column_sums(const SlopeParams& params, std::int64_t m, int row, int begin,
                                   int end, int x, float (&sums)[kPixels]) {
    constexpr int step = vectors ? 1 : kWarp;
    const SlopeSource<type> gradients(params.gradients, m, x, step, params.width, vectors);
    const SlopeSource<type> images(params.images, m, x, step, params.width,
                                   vectors && params.whole_images);
    const SlopeSource<type> backgrounds(params.backgrounds, m, x, step, params.width,
                                        vectors && params.whole_backgrounds);
#pragma unroll 1
    for (int y = begin + static_cast<int>(threadIdx.y); y < end; y += kRowThreads) {
        const float weight = share(bilinear_tap(y, params.mask_height, params.scale_y), row);
        if (weight == 0.0f) {
            continue;
        }
        float pixels[kPixels] = {};
#pragma unroll 1
        for (int c = 0; c < params.channels; ++c) {
            float slopes[kPixels], changes[kPixels];
            gradients.read(c, y, slopes);
            images.read(c, y, changes);
            if constexpr (has_background) {
                float others[kPixels];
                backgrounds.read(c, y, others);
#pragma unroll
                for (int i = 0; i < kPixels; ++i) {
                    changes[i] -= others[i];
                }
            }
#pragma unroll
            for (int i = 0; i < kPixels; ++i) {
                pixels[i] = fmaf(slopes[i], changes[i], pixels[i]);
            }
        }
#pragma unroll
        for (int i = 0; i < kPixels; ++i) {
            sums[i] = fmaf(weight, pixels[i], sums[i]);
        }
    }
}

// grid: (tiles of columns, rows, M) of the masks; block: (kWarp, kRowThreads). A block adds up
// first down, strips of columns of the result, rows shared among the warps, then across. With
// `vectors` a thread has four neighbouring columns of planar gradients, otherwise four that lie a
// warp apart.
template <DType type, bool has_background, bool vectors>
__global__ void __launch_bounds__(kSlopeThreads, kSlopeBlocks)
    slopes_kernel(const SlopeParams params) {
    __shared__ float sums[kRowThreads][kBlockColumns];
    __shared__ float totals[kBlockColumns];
    static_assert(kBlockColumns == kSlopeThreads, "a thread adds up one column");
    constexpr int step = vectors ? 1 : kWarp;
    const int thread = threadIdx.y * kWarp + threadIdx.x;
    const int first = blockIdx.x * kSlopeThreads;
    const int column = first + thread;
    const int last = min(first + kSlopeThreads, params.mask_width) - 1;
    int column_begin, column_end, unused;
    find_targets(first, params.mask_width, params.width, params.inverse_x, column_begin, unused);
    find_targets(last, params.mask_width, params.width, params.inverse_x, unused, column_end);
    column_begin -= column_begin % kPixels; // where vectors are aligned
    int own_begin = 0, own_end = 0;
    if (column < params.mask_width) {
        find_targets(column, params.mask_width, params.width, params.inverse_x, own_begin, own_end);
    }
    for (std::int64_t m = blockIdx.z; m < params.count; m += gridDim.z) {
        for (int row = blockIdx.y; row < params.mask_height; row += gridDim.y) {
            int row_begin, row_end;
            find_targets(row, params.mask_height, params.height, params.inverse_y, row_begin,
                         row_end);
            float slope = 0.0f;
            for (int start = column_begin; start < column_end; start += kBlockColumns) {
                const int offset = threadIdx.x * (vectors ? kPixels : 1);
                float own[kPixels] = {};
                if (start + offset < column_end) {
                    column_sums<type, has_background, vectors>(params, m, row, row_begin, row_end,
                                                               start + offset, own);
                }
#pragma unroll
                for (int i = 0; i < kPixels; ++i) {
                    sums[threadIdx.y][offset + i * step] = own[i];
                }
                __syncthreads();
                float total = sums[0][thread];
#pragma unroll
                for (int part = 1; part < kRowThreads; ++part) {
                    total += sums[part][thread];
                }
                totals[thread] = total;
                __syncthreads();
                const int end = min(own_end, start + kBlockColumns);
                for (int i = max(own_begin, start); i < end; ++i) {
                    const float weight =
                        share(bilinear_tap(i, params.mask_width, params.scale_x), column);
                    if (weight != 0.0f) {
                        slope = fmaf(weight, totals[i - start], slope);
                    }
                }
            }
            // Who goes on waits once before it changes the totals that others may still read.
            if (column < params.mask_width) {
                params.slopes[(m * params.mask_height + row) * params.mask_width + column] = slope;
            }
        }
    }
}

// ---- sums over masks ----

struct ShownSumParams {
    const void* gradients; // [M, planes, height, width], elements of a row as in BlendParams
    const float* masks;
    void* out; // [planes, height, width]
    std::int64_t count;
    int planes, row_channels, mask_height, mask_width, height, width;
    float scale_y, scale_x;
};

// grid: (blocks of a row, rows, planes).
template <DType type>
__global__ void __launch_bounds__(kSlopeThreads) shown_sum_kernel(const ShownSumParams params) {
    using E = Element<type>;
    using Storage = typename E::Storage;
    const int x = blockIdx.x * kSlopeThreads + threadIdx.x;
    if (x >= params.width) {
        return;
    }
    const Tap across = bilinear_tap(x / params.row_channels, params.mask_width, params.scale_x);
    const std::int64_t mask_size = std::int64_t{params.mask_height} * params.mask_width;
    const std::int64_t plane_size = std::int64_t{params.height} * params.width;
    for (int plane = blockIdx.z; plane < params.planes; plane += gridDim.z) {
        for (int y = blockIdx.y; y < params.height; y += gridDim.y) {
            const Tap down = bilinear_tap(y, params.mask_height, params.scale_y);
            const std::int64_t at = plane * plane_size + std::int64_t{y} * params.width + x;
            const Storage* gradient = static_cast<const Storage*>(params.gradients) + at;
            const float* upper = params.masks + std::int64_t{down.low} * params.mask_width;
            const float* lower = params.masks + std::int64_t{down.high} * params.mask_width;
            float sum = 0.0f;
            for (std::int64_t m = 0; m < params.count; ++m) {
                const float high =
                    fmaf(across.weight, upper[across.high] - upper[across.low], upper[across.low]);
                const float low =
                    fmaf(across.weight, lower[across.high] - lower[across.low], lower[across.low]);
                sum = fmaf(E::widen(__ldg(gradient)), fmaf(down.weight, low - high, high), sum);
                gradient += params.planes * plane_size;
                upper += mask_size;
                lower += mask_size;
            }
            static_cast<Storage*>(params.out)[at] = E::narrow(sum);
        }
    }
}

} // namespace
} // namespace pyxai::cuda
