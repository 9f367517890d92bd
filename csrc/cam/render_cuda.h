// Rendering of low-resolution maps, the device side; included by cam.cu alone.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include <cuda_runtime.h>

#include "../common/bilinear.h"
#include "../common/cuda_launch.h"
#include "cam.h"

namespace pyxai::cuda {
namespace {

// ---- offset and factor of each map ----

constexpr int kMaxScalingThreads = 1024;

// v = (u - offset) * factor, after the ReLU.
struct Scaling {
    float offset, factor;
};

// What a thread has seen of a map.
struct Extent {
    float low = FLT_MAX, high = -FLT_MAX;
    int finite = 1;

    __device__ void add(float value) {
        finite &= fabsf(value) <= FLT_MAX; // false for NaN as well
        low = fminf(low, value);
        high = fmaxf(high, value);
    }
};

// The scaling of the map that the threads of a block have seen, each a part of it; for all of
// them. The block is of 1, 2, 4, 8, 16 or 32 warps and waits on the way.
__device__ inline Scaling scaling_of_block(Extent extent, bool relu, bool minmax, int thread,
                                           int threads) {
    __shared__ float lows[kMaxScalingThreads / kWarp];
    __shared__ float highs[kMaxScalingThreads / kWarp];
    float low = extent.low, high = extent.high;
#pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
        low = fminf(low, __shfl_xor_sync(0xffffffffu, low, distance));
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, distance));
    }
    if (thread % kWarp == 0) {
        lows[thread / kWarp] = low;
        highs[thread / kWarp] = high;
    }
    const bool finite = __syncthreads_and(extent.finite);
    const int warps = threads / kWarp;
    low = lows[thread % warps];
    high = highs[thread % warps];
    for (int distance = warps / 2; distance > 0; distance /= 2) {
        low = fminf(low, __shfl_xor_sync(0xffffffffu, low, distance));
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, distance));
    }
    if (relu) {
        low = fmaxf(low, 0.0f);
        high = fmaxf(high, 0.0f);
    }
    const float range = high - low;
    const float factor = !minmax ? 1.0f : range >= FLT_MIN ? 1.0f / range : 0.0f;
    return {minmax ? low : 0.0f, finite ? factor : NAN};
}

// Of maps that blocks of render_kernel do not scale themselves. One block a map; grid: (M).
__global__ void __launch_bounds__(kMaxScalingThreads)
    scaling_kernel(const float* __restrict__ maps, std::int64_t size, bool relu, bool minmax,
                   float* __restrict__ scaling) {
    const float* map = maps + blockIdx.x * size;
    Extent extent;
#pragma unroll 4
    for (std::int64_t i = threadIdx.x; i < size; i += blockDim.x) {
        extent.add(__ldg(map + i));
    }
    const Scaling found =
        scaling_of_block(extent, relu, minmax, static_cast<int>(threadIdx.x), blockDim.x);
    if (threadIdx.x == 0) {
        scaling[2 * static_cast<std::int64_t>(blockIdx.x)] = found.offset;
        scaling[2 * static_cast<std::int64_t>(blockIdx.x) + 1] = found.factor;
    }
}

// ---- resizing ----

enum class Picture { kFloat, kByte, kOverlay };

struct RenderParams {
    const float* maps;          // [M, h, w]
    const float* scaling;       // [M, 2]; null for maps that are scaled where they are rendered
    void* out;                  // [M, H, W], overlay: [M, H, W, 3]
    const std::uint8_t* photos; // overlay: [M, H, W, 3]
    const std::uint8_t* colors; // overlay: [256, 4]
    std::int64_t count;
    int map_height, map_width, height, width;
    float scale_y, scale_x; // source size / target size
    bool relu, minmax;
    int thread_rows; // neighbouring rows that a thread writes
};

constexpr int kRenderThreads = kWarp * kRowThreads;
constexpr int kColors = 256;

template <Picture picture> constexpr float kFull = picture == Picture::kFloat ? 1.0f : 255.0f;

__device__ inline float scaled(float value, bool relu, const Scaling& scaling) {
    value = relu ? fmaxf(value, 0.0f) : value; // loses a NaN, but then the factor is one
    return (value - scaling.offset) * scaling.factor;
}

// A map of at most kSmallMap cells, scaled, for all threads of a block, which wait.
template <Picture picture>
__device__ inline void load_small_map(const RenderParams& params, std::int64_t index, float* cells,
                                      int thread, int threads) {
    const int size = params.map_height * params.map_width;
    const float* map = params.maps + index * size;
    Extent extent;
    __syncthreads(); // others may still read the map before
    for (int i = thread; i < size; i += threads) {
        cells[i] = map[i]; // not by __ldg: other blocks of the same launch may have written it
        extent.add(cells[i]);
    }
    Scaling scaling = scaling_of_block(extent, params.relu, params.minmax, thread, threads);
    scaling.factor *= kFull<picture>;
    for (int i = thread; i < size; i += threads) {
        cells[i] = scaled(cells[i], params.relu, scaling);
    }
    __syncthreads();
}

// A map to render: scaled already (`small`), or as it lies in memory.
template <bool small> struct Map {
    const float* cells;
    Scaling scaling;
    bool relu;

    __device__ float at(const float* row, int column) const {
        return small ? row[column] : scaled(__ldg(row + column), relu, scaling);
    }

    // One row of the map at the columns of the thread.
    __device__ void stretch(const float* row, const Columns& columns,
                            float (&values)[kPixels]) const {
#pragma unroll
        for (int i = 0; i < kPixels; ++i) {
            const float low = at(row, columns.low[i]), high = at(row, columns.high[i]);
            values[i] = low + columns.weight[i] * (high - low);
        }
    }
};

// The columns from `x` on, which is the first pixel of the thread; those beyond the picture are
// read where the last one lies, and not written.
template <bool vectors>
__device__ inline Columns render_columns(const RenderParams& params, int x) {
    Columns columns;
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
        const int column = min(x + i * (vectors ? 1 : kWarp), params.width - 1);
        const Tap tap = bilinear_tap(column, params.map_width, params.scale_x);
        columns.low[i] = tap.low;
        columns.high[i] = tap.high;
        columns.weight[i] = tap.weight;
    }
    return columns;
}

// `value` was scaled by 255. fmaxf turns NaN into 0.
__device__ inline unsigned to_index(float value) {
    return static_cast<unsigned>(fminf(fmaxf(value, 0.0f), 255.0f) + 0.5f);
}

__device__ inline unsigned blend(unsigned photo, unsigned color, unsigned b) {
    return (photo * (256u - b) + color * b + 128u) >> 8;
}

// A thread's pixels of one row: with `vectors` four neighbours, always all of them; otherwise
// pixels that lie a warp apart, so that a warp still writes neighbours. `left`: pixels of the row
// from the first on.
template <bool vectors>
__device__ inline void write_floats(float* out, int left, const float (&values)[kPixels]) {
    if constexpr (vectors) {
        *reinterpret_cast<float4*>(out) = make_float4(values[0], values[1], values[2], values[3]);
    } else {
#pragma unroll
        for (int i = 0; i < kPixels; ++i) {
            if (i * kWarp < left) {
                out[i * kWarp] = values[i];
            }
        }
    }
}

template <bool vectors>
__device__ inline void write_bytes(std::uint8_t* out, int left, const float (&values)[kPixels]) {
    if constexpr (vectors) {
        *reinterpret_cast<unsigned*>(out) = to_index(values[0]) | to_index(values[1]) << 8 |
                                            to_index(values[2]) << 16 | to_index(values[3]) << 24;
    } else {
#pragma unroll
        for (int i = 0; i < kPixels; ++i) {
            if (i * kWarp < left) {
                out[i * kWarp] = static_cast<std::uint8_t>(to_index(values[i]));
            }
        }
    }
}

// Three words of each of the first `lanes` lanes, one after the other; `out` is the first of this
// lane's. The lanes write neighbours at a time, so that each sector is written once.
__device__ inline void write_triples(unsigned* out, const unsigned (&words)[3], int lanes) {
    const int lane = threadIdx.x % kWarp;
    const unsigned mask = 0xffffffffu >> (kWarp - lanes);
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        const int at = i * lanes + lane, from = at / 3;
        const unsigned first = __shfl_sync(mask, words[0], from);
        const unsigned second = __shfl_sync(mask, words[1], from);
        const unsigned third = __shfl_sync(mask, words[2], from);
        out[at - 3 * lane] = at % 3 == 0 ? first : at % 3 == 1 ? second : third;
    }
}

// `colors` holds r, g, b, a from the lowest byte up. Four neighbours are 12 bytes: three words.
template <bool vectors>
__device__ inline void write_overlay(const std::uint8_t* photo, const unsigned* colors,
                                     std::uint8_t* out, int left, const float (&values)[kPixels]) {
    unsigned words[3] = {};
    if constexpr (vectors) {
#pragma unroll
        for (int i = 0; i < 3; ++i) {
            words[i] = __ldg(reinterpret_cast<const unsigned*>(photo) + i);
        }
    }
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
        if (!vectors && i * kWarp >= left) {
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
        const int lanes = min(static_cast<int>(threadIdx.x) % kWarp + left / kPixels, kWarp);
        write_triples(reinterpret_cast<unsigned*>(out), words, lanes);
    }
}

template <Picture picture, bool vectors>
__device__ inline void write_pixels(const RenderParams& params, const unsigned* colors,
                                    std::int64_t pixel, int left, const float (&values)[kPixels]) {
    if constexpr (picture == Picture::kFloat) {
        write_floats<vectors>(static_cast<float*>(params.out) + pixel, left, values);
    } else if constexpr (picture == Picture::kByte) {
        write_bytes<vectors>(static_cast<std::uint8_t*>(params.out) + pixel, left, values);
    } else {
        write_overlay<vectors>(params.photos + 3 * pixel, colors,
                               static_cast<std::uint8_t*>(params.out) + 3 * pixel, left, values);
    }
}

// Rows [begin, end) of one picture at the thread's columns, the first of which is `x`. Neighbouring
// rows mostly lie between the same two source rows, which stay in registers.
template <Picture picture, bool vectors, bool small>
__device__ inline void render_rows(const RenderParams& params, const Map<small>& map,
                                   const unsigned* colors, const Columns& columns,
                                   std::int64_t index, int x, int begin, int end) {
    const std::int64_t map_width = params.map_width;
    const int left = params.width - x;
    float upper[kPixels], lower[kPixels];
    int held = -2; // source row in `upper`; the next one is in `lower`
    for (int y = begin; y < end; ++y) {
        const Tap tap = bilinear_tap(y, params.map_height, params.scale_y);
        if (tap.low != held) {
            if (tap.low == held + 1) {
#pragma unroll
                for (int i = 0; i < kPixels; ++i) {
                    upper[i] = lower[i];
                }
            } else {
                map.stretch(map.cells + tap.low * map_width, columns, upper);
            }
            map.stretch(map.cells + tap.high * map_width, columns, lower);
            held = tap.low;
        }
        float values[kPixels];
#pragma unroll
        for (int i = 0; i < kPixels; ++i) {
            values[i] = upper[i] + tap.weight * (lower[i] - upper[i]);
        }
        const std::int64_t row = index * params.height + y;
        write_pixels<picture, vectors>(params, colors, row * params.width + x, left, values);
    }
}

// Half of the occupancy is enough to keep memory writing; with more, registers spill on sm_80.
template <Picture picture> // blocks of a multiprocessor
constexpr int kRenderBlocks = picture == Picture::kOverlay ? 7 : 8;

// grid: (tiles of columns, tiles of rows, M); block: (kWarp, kRowThreads).
template <Picture picture, bool vectors, bool small>
__global__ void __launch_bounds__(kRenderThreads, kRenderBlocks<picture>)
    render_kernel(const RenderParams params) {
    __shared__ unsigned colors[picture == Picture::kOverlay ? kColors : 1];
    __shared__ float cells[small ? kSmallMap : 1];
    const int thread = threadIdx.y * kWarp + threadIdx.x;
    if constexpr (picture == Picture::kOverlay) {
        for (int i = thread; i < kColors; i += kRenderThreads) {
            const std::uint8_t* color = params.colors + 4 * i; // aligned to nothing
            colors[i] = color[0] | color[1] << 8 | color[2] << 16 | unsigned{color[3]} << 24;
        }
        __syncthreads();
    }
    const int x = blockIdx.x * kBlockColumns + threadIdx.x * (vectors ? kPixels : 1);
    const Columns columns = render_columns<vectors>(params, x);
    const int tile_rows = kRowThreads * params.thread_rows;
    for (std::int64_t index = blockIdx.z; index < params.count; index += gridDim.z) {
        Map<small> map{cells, {0.0f, 1.0f}, params.relu};
        if constexpr (small) {
            load_small_map<picture>(params, index, cells, thread, kRenderThreads);
        } else {
            map.cells = params.maps + index * params.map_height * std::int64_t{params.map_width};
            map.scaling.offset = __ldg(params.scaling + 2 * index);
            map.scaling.factor = __ldg(params.scaling + 2 * index + 1) * kFull<picture>;
        }
        for (std::int64_t tile = std::int64_t{tile_rows} * blockIdx.y;
             x < params.width && tile < params.height;
             tile += std::int64_t{tile_rows} * gridDim.y) {
            const std::int64_t begin = tile + threadIdx.y * params.thread_rows;
            const std::int64_t end = min(begin + params.thread_rows, std::int64_t{params.height});
            if (begin < end) {
                render_rows<picture, vectors>(params, map, colors, columns, index, x,
                                              static_cast<int>(begin), static_cast<int>(end));
            }
        }
    }
}

} // namespace
} // namespace pyxai::cuda
