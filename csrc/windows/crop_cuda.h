// Windows of a photo, normalised and resized, the device side; included by windows.cu alone.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "../common/bilinear.h"
#include "../common/cuda_launch.h"
#include "../common/element_cuda.h"
#include "box_cuda.h"
#include "windows.h"

namespace pyxai::cuda {
namespace {

// A row of the result holds the elements of one channel, and each channel is a plane of its own;
// when channels come last, it holds all channels, and there is one plane.
struct CropParams {
    const void* photo;
    std::int64_t channel_stride, row_stride, column_stride;
    int photo_height, photo_width;
    const WindowBox* boxes;
    void* out; // [n, planes, height, width]
    std::int64_t count;
    int planes, row_channels; // one of them is 1
    int height, width, columns;
    int thread_rows;           // neighbouring rows that a thread writes
    float scale[kMaxChannels]; // indexed where they lie, among the constants of the launch
    float shift[kMaxChannels];
};

struct ByteElement {
    using Storage = unsigned char;
    static __device__ float widen(unsigned char value) {
        return static_cast<float>(value);
    }
};

// The columns of a thread in a box: offsets from the start of a row of it, and the channel.
struct CropColumns {
    Columns taps; // offsets of elements
    int channel[kPixels];
};

// A window as its rows are read: `kept` as they are, otherwise resized.
template <class Source> struct CropWindow {
    const typename Source::Storage* photo; // its corner
    int height, width;
    bool kept;
};

template <class Source>
__device__ inline CropWindow<Source> crop_window(const CropParams& params, std::int64_t index) {
    const WindowBox box = box_inside(params.boxes[index], params.photo_height, params.photo_width);
    CropWindow<Source> window;
    window.photo = static_cast<const typename Source::Storage*>(params.photo) +
                   box.y0 * params.row_stride + box.x0 * params.column_stride;
    window.height = static_cast<int>(box.y1 - box.y0);
    window.width = static_cast<int>(box.x1 - box.x0);
    window.kept = window.height == params.height && window.width == params.columns;
    return window;
}

template <bool vectors>
__device__ inline CropColumns crop_columns(const CropParams& params, int window_width, int x) {
    const float scale_x = static_cast<float>(window_width) / static_cast<float>(params.columns);
    CropColumns columns;
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
        // Elements beyond the row are read where the last one lies, and not written.
        const int element = min(x + i * (vectors ? 1 : kWarp), params.width - 1);
        const Tap tap = bilinear_tap(element / params.row_channels, window_width, scale_x);
        const int channel = element % params.row_channels;
        const std::int64_t start = channel * params.channel_stride;
        columns.channel[i] = channel;
        // The host has checked that these fit.
        columns.taps.low[i] = static_cast<int>(start + tap.low * params.column_stride);
        columns.taps.high[i] = static_cast<int>(start + tap.high * params.column_stride);
        columns.taps.weight[i] = tap.weight;
    }
    return columns;
}

// A row at the thread's columns, normalised; resized across unless the window is kept.
template <class Source>
__device__ inline void crop_row(const typename Source::Storage* row, const CropColumns& columns,
                                const CropParams& params, int plane, bool kept,
                                float (&values)[kPixels]) {
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
        const float scale = params.scale[columns.channel[i] + plane];
        const float shift = params.shift[columns.channel[i] + plane];
        const float low = fmaf(Source::widen(__ldg(row + columns.taps.low[i])), scale, shift);
        values[i] = low;
        if (!kept) {
            const float high = fmaf(Source::widen(__ldg(row + columns.taps.high[i])), scale, shift);
            values[i] = fmaf(columns.taps.weight[i], high - low, low);
        }
    }
}

// Rows [begin, end) of one plane of a window at the thread's columns. Neighbouring rows that are
// resized share source rows, which stay in registers.
template <class Source, DType type, bool vectors>
__device__ inline void crop_rows(const CropParams& params, const CropWindow<Source>& window,
                                 const CropColumns& columns, int plane, int begin, int end,
                                 int count, typename Element<type>::Storage* out) {
    const auto* const photo = window.photo + plane * params.channel_stride;
    const float scale_y = static_cast<float>(window.height) / static_cast<float>(params.height);
    float upper[kPixels], lower[kPixels];
    int held = -2; // source row in `upper`; the next one is in `lower`
#pragma unroll 1
    for (int y = begin; y < end; ++y) {
        float values[kPixels];
        if (window.kept) {
            crop_row<Source>(photo + y * params.row_stride, columns, params, plane, true, values);
        } else {
            const Tap tap = bilinear_tap(y, window.height, scale_y);
            if (tap.low == held + 1) {
#pragma unroll
                for (int i = 0; i < kPixels; ++i) {
                    upper[i] = lower[i];
                }
            } else if (tap.low != held) {
                crop_row<Source>(photo + tap.low * params.row_stride, columns, params, plane, false,
                                 upper);
            }
            if (tap.low != held) {
                crop_row<Source>(photo + tap.high * params.row_stride, columns, params, plane,
                                 false, lower);
                held = tap.low;
            }
#pragma unroll
            for (int i = 0; i < kPixels; ++i) {
                values[i] = fmaf(tap.weight, lower[i] - upper[i], upper[i]);
            }
        }
        write_elements<type, vectors>(out + std::int64_t{y} * params.width, count, values);
    }
}

constexpr int kCropThreads = kWarp * kRowThreads;
constexpr int kCropBlocks = 6; // of a multiprocessor; for 7 registers go to memory

// grid: (tiles of columns, tiles of rows, n); block: (kWarp, kRowThreads).
template <class Source, DType type, bool vectors>
__global__ void __launch_bounds__(kCropThreads, kCropBlocks)
    crop_kernel(const __grid_constant__ CropParams params) {
    using To = typename Element<type>::Storage;
    const int x = blockIdx.x * kBlockColumns + threadIdx.x * (vectors ? kPixels : 1);
    if (x >= params.width) {
        return;
    }
    const int count = (params.width - x + kWarp - 1) / kWarp; // of elements a warp apart
    const int tile_rows = kRowThreads * params.thread_rows;
    const std::int64_t plane_size = std::int64_t{params.height} * params.width;
    for (std::int64_t index = blockIdx.z; index < params.count; index += gridDim.z) {
        const CropWindow<Source> window = crop_window<Source>(params, index);
        const CropColumns columns = crop_columns<vectors>(params, window.width, x);
        To* const out = static_cast<To*>(params.out) + index * params.planes * plane_size + x;
        for (std::int64_t tile = std::int64_t{tile_rows} * blockIdx.y; tile < params.height;
             tile += std::int64_t{tile_rows} * gridDim.y) {
            const std::int64_t begin = tile + threadIdx.y * params.thread_rows;
            const std::int64_t end = min(begin + params.thread_rows, std::int64_t{params.height});
#pragma unroll 1
            for (int plane = 0; plane < params.planes; ++plane) {
                crop_rows<Source, type, vectors>(params, window, columns, plane,
                                                 static_cast<int>(begin), static_cast<int>(end),
                                                 count, out + plane * plane_size);
            }
        }
    }
}

} // namespace
} // namespace pyxai::cuda
