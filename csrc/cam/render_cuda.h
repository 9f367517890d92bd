// Rendering of low-resolution maps, the device side; included by cam.cu alone.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include <cuda_runtime.h>

#include "../common/bilinear.h"
#include "../common/cuda_launch.h"

namespace pyxai::cuda {
namespace {

// ---- offset and factor of each map ----

constexpr int kMaxScalingThreads = 1024;

// Writes (offset, factor): v = (u - offset) * factor. One block a map, of whole warps; grid: (M).
__global__ void __launch_bounds__(kMaxScalingThreads)
    scaling_kernel(const float* __restrict__ maps, std::int64_t size, bool relu, bool minmax,
                   float* __restrict__ scaling) {
    __shared__ float lows[kMaxScalingThreads / kWarp];
    __shared__ float highs[kMaxScalingThreads / kWarp];
    const float* map = maps + blockIdx.x * size;
    float low = FLT_MAX, high = -FLT_MAX;
    int finite = 1;
#pragma unroll 4
    for (std::int64_t i = threadIdx.x; i < size; i += blockDim.x) {
        const float value = __ldg(map + i);
        finite &= fabsf(value) <= FLT_MAX; // false for NaN as well
        low = fminf(low, value);
        high = fmaxf(high, value);
    }
#pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
        low = fminf(low, __shfl_xor_sync(0xffffffffu, low, distance));
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, distance));
    }
    if (threadIdx.x % kWarp == 0) {
        lows[threadIdx.x / kWarp] = low;
        highs[threadIdx.x / kWarp] = high;
    }
    finite = __syncthreads_and(finite);
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < static_cast<int>(blockDim.x) / kWarp; ++warp) {
            low = fminf(low, lows[warp]);
            high = fmaxf(high, highs[warp]);
        }
        if (relu) {
            low = fmaxf(low, 0.0f);
            high = fmaxf(high, 0.0f);
        }
        const float range = high - low;
        const float factor = !minmax ? 1.0f : range >= FLT_MIN ? 1.0f / range : 0.0f;
        scaling[2 * static_cast<std::int64_t>(blockIdx.x)] = minmax ? low : 0.0f;
        scaling[2 * static_cast<std::int64_t>(blockIdx.x) + 1] = finite ? factor : NAN;
    }
}

// ---- resizing ----

enum class Picture { kFloat, kByte, kOverlay };

struct RenderParams {
    const float* maps;          // [M, h, w]
    const float* scaling;       // [M, 2]
    void* out;                  // [M, H, W], overlay: [M, H, W, 3]
    const std::uint8_t* photos; // overlay: [M, H, W, 3]
    const std::uint8_t* colors; // overlay: [256, 4]
    std::int64_t count;
    int map_height, map_width, height, width;
    float scale_y, scale_x; // source size / target size
    bool relu;
    int thread_rows; // neighbouring rows that a thread writes
};

constexpr int kRenderThreads = kWarp * kRowThreads;
constexpr int kColors = 256;

// One row of the map, scaled, at the columns of the thread.
__device__ inline void stretch_row(const float* row, const Columns& columns, bool relu,
                                   float offset, float factor, float (&values)[kPixels]) {
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
        float low = __ldg(row + columns.low[i]);
        float high = __ldg(row + columns.high[i]);
        low = relu ? fmaxf(low, 0.0f) : low; // loses a NaN, but then the factor is one
        high = relu ? fmaxf(high, 0.0f) : high;
        low = (low - offset) * factor;
        high = (high - offset) * factor;
        values[i] = low + columns.weight[i] * (high - low);
    }
}

// `value` was scaled by 255. fmaxf turns NaN into 0.
__device__ inline unsigned to_index(float value) {
    return static_cast<unsigned>(fminf(fmaxf(value, 0.0f), 255.0f) + 0.5f);
}

__device__ inline unsigned blend(unsigned photo, unsigned color, unsigned b) {
    return (photo * (256u - b) + color * b + 128u) >> 8;
}

// A thread's pixels of one row: with `vectors` four neighbours, always all of them; otherwise
// `count` pixels that lie a warp apart, so that a warp still writes neighbours.
template <bool vectors>
__device__ inline void write_floats(float* out, int count, const float (&values)[kPixels]) {
    if constexpr (vectors) {
        *reinterpret_cast<float4*>(out) = make_float4(values[0], values[1], values[2], values[3]);
    } else {
#pragma unroll
        for (int i = 0; i < kPixels; ++i) {
            if (i < count) {
                out[i * kWarp] = values[i];
            }
        }
    }
}

template <bool vectors>
__device__ inline void write_bytes(std::uint8_t* out, int count, const float (&values)[kPixels]) {
    if constexpr (vectors) {
        *reinterpret_cast<unsigned*>(out) = to_index(values[0]) | to_index(values[1]) << 8 |
                                            to_index(values[2]) << 16 | to_index(values[3]) << 24;
    } else {
#pragma unroll
        for (int i = 0; i < kPixels; ++i) {
            if (i < count) {
                out[i * kWarp] = static_cast<std::uint8_t>(to_index(values[i]));
            }
        }
    }
}

// `colors` holds r, g, b, a from the lowest byte up. Four neighbours are 12 bytes: three words.
template <bool vectors>
__device__ inline void write_overlay(const std::uint8_t* photo, const unsigned* colors,
                                     std::uint8_t* out, int count, const float (&values)[kPixels]) {
    unsigned words[3] = {};
    if constexpr (vectors) {
#pragma unroll
        for (int i = 0; i < 3; ++i) {
            words[i] = __ldg(reinterpret_cast<const unsigned*>(photo) + i);
        }
    }
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
        if (!vectors && i >= count) {
            continue;
        }
        const unsigned color = colors[to_index(values[i])];
        const unsigned alpha = color >> 24;
        const unsigned b = alpha + (alpha >> 7);
#pragma unroll
        for (int k = 0; k < 3; ++k) {
            const unsigned channel = color >> (8 * k) & 255u;
            if constexpr (vectors) {
                unsigned& word = words[(3 * i + k) / 4];
                const int shift = 8 * ((3 * i + k) % 4);
                const unsigned blended = blend(word >> shift & 255u, channel, b);
                word = (word & ~(255u << shift)) | blended << shift;
            } else {
                const int at = 3 * kWarp * i + k;
                out[at] = static_cast<std::uint8_t>(blend(__ldg(photo + at), channel, b));
            }
        }
    }
    if constexpr (vectors) {
#pragma unroll
        for (int i = 0; i < 3; ++i) {
            reinterpret_cast<unsigned*>(out)[i] = words[i];
        }
    }
}

template <Picture picture, bool vectors>
__device__ inline void write_pixels(const RenderParams& params, const unsigned* colors,
                                    std::int64_t pixel, int count, const float (&values)[kPixels]) {
    if constexpr (picture == Picture::kFloat) {
        write_floats<vectors>(static_cast<float*>(params.out) + pixel, count, values);
    } else if constexpr (picture == Picture::kByte) {
        write_bytes<vectors>(static_cast<std::uint8_t*>(params.out) + pixel, count, values);
    } else {
        write_overlay<vectors>(params.photos + 3 * pixel, colors,
                               static_cast<std::uint8_t*>(params.out) + 3 * pixel, count, values);
    }
}

// Rows [begin, end) of one picture at the thread's columns, the first of which is `x`. Neighbouring
// rows mostly lie between the same two source rows, which stay in registers.
template <Picture picture, bool vectors>
__device__ inline void render_rows(const RenderParams& params, const unsigned* colors,
                                   const Columns& columns, std::int64_t picture_index, int x,
                                   int begin, int end) {
    const float offset = __ldg(params.scaling + 2 * picture_index);
    const float factor = __ldg(params.scaling + 2 * picture_index + 1) *
                         (picture == Picture::kFloat ? 1.0f : 255.0f);
    const std::int64_t map_width = params.map_width;
    const float* map = params.maps + picture_index * params.map_height * map_width;
    const int count = (params.width - x + kWarp - 1) / kWarp; // of pixels a warp apart
    float upper[kPixels], lower[kPixels];
    int held = -1; // source row in `upper`
    for (int y = begin; y < end; ++y) {
        const Tap tap = bilinear_tap(y, params.map_height, params.scale_y);
        if (tap.low != held) {
            stretch_row(map + tap.low * map_width, columns, params.relu, offset, factor, upper);
            stretch_row(map + tap.high * map_width, columns, params.relu, offset, factor, lower);
            held = tap.low;
        }
        float values[kPixels];
#pragma unroll
        for (int i = 0; i < kPixels; ++i) {
            values[i] = upper[i] + tap.weight * (lower[i] - upper[i]);
        }
        const std::int64_t row = picture_index * params.height + y;
        write_pixels<picture, vectors>(params, colors, row * params.width + x, count, values);
    }
}

// grid: (tiles of columns, tiles of rows, M); block: (kWarp, kRowThreads).
template <Picture picture, bool vectors>
__global__ void __launch_bounds__(kRenderThreads) render_kernel(const RenderParams params) {
    __shared__ unsigned colors[picture == Picture::kOverlay ? kColors : 1];
    if constexpr (picture == Picture::kOverlay) {
        for (int i = threadIdx.y * kWarp + threadIdx.x; i < kColors; i += kRenderThreads) {
            const std::uint8_t* color = params.colors + 4 * i; // aligned to nothing
            colors[i] = color[0] | color[1] << 8 | color[2] << 16 | unsigned{color[3]} << 24;
        }
        __syncthreads();
    }
    const int x = blockIdx.x * kBlockColumns + threadIdx.x * (vectors ? kPixels : 1);
    if (x >= params.width) {
        return;
    }
    Columns columns;
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
        const int column = min(x + i * (vectors ? 1 : kWarp), params.width - 1);
        const Tap tap = bilinear_tap(column, params.map_width, params.scale_x);
        columns.low[i] = tap.low;
        columns.high[i] = tap.high;
        columns.weight[i] = tap.weight;
    }
    const int tile_rows = kRowThreads * params.thread_rows;
    for (std::int64_t index = blockIdx.z; index < params.count; index += gridDim.z) {
        for (std::int64_t tile = std::int64_t{tile_rows} * blockIdx.y; tile < params.height;
             tile += std::int64_t{tile_rows} * gridDim.y) {
            const std::int64_t begin = tile + threadIdx.y * params.thread_rows;
            const std::int64_t end = min(begin + params.thread_rows, std::int64_t{params.height});
            if (begin < end) {
                render_rows<picture, vectors>(params, colors, columns, index, x,
                                              static_cast<int>(begin), static_cast<int>(end));
            }
        }
    }
}

} // namespace
} // namespace pyxai::cuda
