// Scores of windows as a map over the photo, the device side; included by windows.cu alone.
//
// A block makes a tile of one map. It keeps one row of differences in shared memory: what boxes add
// where they begin, and take away where they end. Going down, rows in which boxes begin or end
// change it and sum it up anew; the others repeat the row above. Integers may be added in any
// order.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "../common/cuda_launch.h"
#include "box_cuda.h"
#include "heatmap_scale.h"
#include "windows.h"

namespace pyxai::cuda {
namespace {

constexpr int kHeatmapThreads = 128;
constexpr int kHeatmapWarps = kHeatmapThreads / kWarp;
constexpr int kHeatmapColumns = kHeatmapThreads * kPixels; // of a tile
constexpr int kHeatmapRows = 32;  // of a tile, at most: a bit of `changing` each
constexpr int kHeatmapBlocks = 8; // of a multiprocessor
constexpr int kListed = 1024;

struct HeatmapParams {
    HeatmapArgs args;
    int count, height, width; // those of `args`
    int rows;                 // of a tile
    int column_tiles;         // of a map
};

struct HeatmapMemory {
    long long sums[kHeatmapColumns]; // differences of the row
    int counts[kHeatmapColumns];
    int listed[kListed]; // boxes that begin or end within the tile
    int list_size;       // also what would not fit
    unsigned changing;   // rows where they do
    long long warp_sums[kHeatmapWarps];
    int warp_counts[kHeatmapWarps];
    float warp_largest[kHeatmapWarps];
};

struct HeatmapTile {
    int x, y, columns, rows;
};

// The part of a box that lies in the tile: [x0, x1) and [y0, y1) from its corner; perhaps empty.
struct BoxInTile {
    int x0, y0, x1, y1;

    __device__ BoxInTile(const HeatmapParams& params, const HeatmapTile& tile, int i) {
        const WindowBox box = box_inside(params.args.boxes[i], params.height, params.width);
        x0 = max(static_cast<int>(box.x0) - tile.x, 0);
        y0 = max(static_cast<int>(box.y0) - tile.y, 0);
        x1 = min(static_cast<int>(box.x1) - tile.x, tile.columns);
        y1 = min(static_cast<int>(box.y1) - tile.y, tile.rows);
    }

    __device__ bool is_empty() const {
        return x0 >= x1 || y0 >= y1;
    }
};

__device__ inline void add_at(HeatmapMemory& memory, int x, long long value, int one) {
    // Two's complement: adding without a sign is the same.
    atomicAdd(reinterpret_cast<unsigned long long*>(memory.sums + x),
              static_cast<unsigned long long>(value));
    atomicAdd(memory.counts + x, one);
}

// `one`: 1 where the box begins, -1 where it ends.
__device__ inline void add_box(HeatmapMemory& memory, const HeatmapTile& tile, const BoxInTile& box,
                               long long value, int one) {
    add_at(memory, box.x0, one * value, one);
    if (box.x1 < tile.columns) {
        add_at(memory, box.x1, -one * value, -one);
    }
}

// The greatest magnitude of the scores of a map, or infinity; the same for all threads, which wait.
__device__ inline float largest_score(HeatmapMemory& memory, const float* scores, int count) {
    float largest = 0.0f;
    for (int i = threadIdx.x; i < count; i += kHeatmapThreads) {
        const float magnitude = fabsf(__ldg(scores + i));
        largest = magnitude <= largest ? largest : isfinite(magnitude) ? magnitude : INFINITY;
    }
#pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, distance));
    }
    if (threadIdx.x % kWarp == 0) {
        memory.warp_largest[threadIdx.x / kWarp] = largest;
    }
    __syncthreads();
#pragma unroll
    for (int warp = 0; warp < kHeatmapWarps; ++warp) {
        largest = fmaxf(largest, memory.warp_largest[warp]);
    }
    return largest;
}

// The sum of the values of the lanes before this one, and of all.
template <class T> __device__ inline T sum_before_lane(T value, T& all) {
    const int lane = threadIdx.x % kWarp;
    T sum = value;
#pragma unroll
    for (int step = 1; step < kWarp; step *= 2) {
        const T other = __shfl_up_sync(0xffffffffu, sum, step);
        sum += lane >= step ? other : 0;
    }
    all = __shfl_sync(0xffffffffu, sum, kWarp - 1);
    return sum - value;
}

// The means of the row at the thread's columns. All threads wait.
__device__ inline void sum_row(HeatmapMemory& memory, double unit, float fill,
                               float (&means)[kPixels]) {
    const int first = threadIdx.x * kPixels, warp = threadIdx.x / kWarp;
    long long sums[kPixels];
    int counts[kPixels];
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
        sums[i] = memory.sums[first + i] + (i == 0 ? 0 : sums[i - 1]);
        counts[i] = memory.counts[first + i] + (i == 0 ? 0 : counts[i - 1]);
    }
    long long warp_sum;
    int warp_count;
    long long sum = sum_before_lane(sums[kPixels - 1], warp_sum);
    int count = sum_before_lane(counts[kPixels - 1], warp_count);
    if (threadIdx.x % kWarp == 0) {
        memory.warp_sums[warp] = warp_sum;
        memory.warp_counts[warp] = warp_count;
    }
    __syncthreads();
#pragma unroll
    for (int other = 0; other < kHeatmapWarps - 1; ++other) {
        sum += other < warp ? memory.warp_sums[other] : 0;
        count += other < warp ? memory.warp_counts[other] : 0;
    }
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
        const int covering = count + counts[i];
        means[i] = covering == 0 ? fill : heatmap_mean(sum + sums[i], covering, unit);
    }
}

template <bool vectors>
__device__ inline void write_means(float* out, int count, const float (&means)[kPixels]) {
    if constexpr (vectors) {
        if (count > 0) {
            write_four(out, means[0], means[1], means[2], means[3]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < kPixels; ++i) {
            if (i < count) {
                out[i] = means[i];
            }
        }
    }
}

template <bool vectors>
__device__ inline void make_tile(const HeatmapParams& params, HeatmapMemory& memory,
                                 const HeatmapTile& tile, std::int64_t map) {
    const float* scores = params.args.scores + map * params.count;
    const int first = threadIdx.x * kPixels;
    float* out = params.args.out + (map * params.height + tile.y) * params.width + tile.x + first;
    __syncthreads(); // others may still read what is there of the map before
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
        memory.sums[first + i] = 0;
        memory.counts[first + i] = 0;
    }
    if (threadIdx.x == 0) {
        memory.list_size = 0;
        memory.changing = 1;
    }
    const float largest = largest_score(memory, scores, params.count); // waits
    const int shift = heatmap_shift(largest, params.count);
    const double scale = ldexp(1.0, shift), unit = ldexp(1.0, -shift);
    const bool finite = isfinite(largest);
    for (int i = threadIdx.x; finite && i < params.count; i += kHeatmapThreads) {
        const BoxInTile box(params, tile, i);
        if (box.is_empty()) {
            continue;
        }
        if (box.y0 == 0) {
            add_box(memory, tile, box, __double2ll_rn(scores[i] * scale), 1);
        }
        const unsigned begins = box.y0 > 0 ? 1u << box.y0 : 0;
        const unsigned ends = box.y1 < tile.rows ? 1u << box.y1 : 0;
        if ((begins | ends) != 0) {
            atomicOr(&memory.changing, begins | ends);
            const int place = atomicAdd(&memory.list_size, 1);
            if (place < kListed) {
                memory.listed[place] = i;
            }
        }
    }
    __syncthreads();
    const unsigned changing = memory.changing;
    const bool all_listed = memory.list_size <= kListed;
    const int candidates = all_listed ? memory.list_size : params.count;
    float means[kPixels] = {NAN, NAN, NAN, NAN};
    for (int y = 0; y < tile.rows; ++y, out += params.width) {
        if (finite && (changing >> y & 1) != 0) {
            for (int k = threadIdx.x; y > 0 && k < candidates; k += kHeatmapThreads) {
                const int i = all_listed ? memory.listed[k] : k;
                const BoxInTile box(params, tile, i);
                const bool ends = box.y1 == y; // so it is above the edge of the tile
                if (!box.is_empty() && (box.y0 == y || ends)) {
                    add_box(memory, tile, box, __double2ll_rn(scores[i] * scale), ends ? -1 : 1);
                }
            }
            __syncthreads();
            sum_row(memory, unit, params.args.fill, means);
        }
        write_means<vectors>(out, tile.columns - first, means);
    }
}

// grid: (tiles of a map, 1, maps).
template <bool vectors>
__global__ void __launch_bounds__(kHeatmapThreads, kHeatmapBlocks)
    heatmap_kernel(const HeatmapParams params) {
    __shared__ HeatmapMemory memory;
    HeatmapTile tile;
    tile.x = static_cast<int>(blockIdx.x % params.column_tiles) * kHeatmapColumns;
    tile.y = static_cast<int>(blockIdx.x / params.column_tiles) * params.rows;
    tile.columns = min(params.width - tile.x, kHeatmapColumns);
    tile.rows = min(params.height - tile.y, params.rows);
    for (std::int64_t map = blockIdx.z; map < params.args.maps; map += gridDim.z) {
        make_tile<vectors>(params, memory, tile, map);
    }
}

} // namespace
} // namespace pyxai::cuda
