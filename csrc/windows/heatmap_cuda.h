// Scores of windows as a map over the photo, the device side; included by windows.cu alone.
// Differences of integers at the corners of the boxes, summed down, then across: integers may be
// added in any order.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "../common/cuda_launch.h"
#include "crop_cuda.h"
#include "heatmap_scale.h"
#include "windows.h"

namespace pyxai::cuda {
namespace {

constexpr int kHeatmapThreads = 256;

struct HeatmapParams {
    const float* scores;  // [maps, count]
    const float* largest; // [maps]
    const WindowBox* boxes;
    std::int64_t* changes; // [maps + 1, height, width]; the last counts boxes
    float* out;            // [maps, height, width]
    std::int64_t maps, count;
    int height, width;
};

__device__ inline void add_change(const HeatmapParams& params, std::int64_t plane, std::int64_t y,
                                  std::int64_t x, std::int64_t value) {
    if (y < params.height && x < params.width) {
        std::int64_t* const at = params.changes + (plane * params.height + y) * params.width + x;
        // Two's complement: adding without a sign is the same.
        atomicAdd(reinterpret_cast<unsigned long long*>(at),
                  static_cast<unsigned long long>(value));
    }
}

// grid: (tiles of boxes, maps + 1).
__global__ void __launch_bounds__(kHeatmapThreads) heatmap_corners_kernel(HeatmapParams params) {
    const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i >= params.count) {
        return;
    }
    const WindowBox box = box_inside(params.boxes[i], params.height, params.width);
    for (std::int64_t plane = blockIdx.y; plane <= params.maps; plane += gridDim.y) {
        std::int64_t value = 1;
        if (plane < params.maps) {
            const float largest = params.largest[plane];
            if (!isfinite(largest)) {
                continue;
            }
            const double scale = ldexp(1.0, heatmap_shift(largest, params.count));
            value = __double2ll_rn(params.scores[plane * params.count + i] * scale);
        }
        add_change(params, plane, box.y0, box.x0, value);
        add_change(params, plane, box.y1, box.x1, value);
        add_change(params, plane, box.y0, box.x1, -value);
        add_change(params, plane, box.y1, box.x0, -value);
    }
}

// grid: (tiles of columns, maps + 1).
__global__ void __launch_bounds__(kHeatmapThreads) heatmap_down_kernel(HeatmapParams params) {
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    if (x >= params.width) {
        return;
    }
    for (std::int64_t plane = blockIdx.y; plane <= params.maps; plane += gridDim.y) {
        std::int64_t* at = params.changes + plane * params.height * params.width + x;
        std::int64_t sum = 0;
#pragma unroll 8
        for (int y = 0; y < params.height; ++y, at += params.width) {
            sum += *at;
            *at = sum;
        }
    }
}

// The sum of the values of the lanes up to this one.
__device__ inline long long sum_up_to_lane(long long value) {
#pragma unroll
    for (int step = 1; step < kWarp; step *= 2) {
        const long long other = __shfl_up_sync(0xffffffffu, value, step);
        value += threadIdx.x >= step ? other : 0;
    }
    return value;
}

// grid: (tiles of rows, maps); block: (kWarp, kRowThreads), a warp for each row.
__global__ void __launch_bounds__(kWarp* kRowThreads) heatmap_across_kernel(HeatmapParams params) {
    const int y = blockIdx.x * kRowThreads + threadIdx.y;
    if (y >= params.height) {
        return; // the whole warp
    }
    const int lane = threadIdx.x;
    const std::int64_t pixels = std::int64_t{params.height} * params.width;
    const std::int64_t row = std::int64_t{y} * params.width;
    const std::int64_t* counts = params.changes + params.maps * pixels + row;
    for (std::int64_t map = blockIdx.y; map < params.maps; map += gridDim.y) {
        const std::int64_t* sums = params.changes + map * pixels + row;
        float* out = params.out + map * pixels + row;
        const float largest = params.largest[map];
        const double unit = ldexp(1.0, -heatmap_shift(largest, params.count));
        long long sum = 0, count = 0; // of all columns before
        for (int start = 0; start < params.width; start += kWarp) {
            const int x = start + lane;
            const bool inside = x < params.width;
            const long long sum_here = sum + sum_up_to_lane(inside ? sums[x] : 0);
            const long long count_here = count + sum_up_to_lane(inside ? counts[x] : 0);
            if (inside) {
                out[x] = isfinite(largest) ? heatmap_mean(sum_here, count_here, unit) : NAN;
            }
            sum = __shfl_sync(0xffffffffu, sum_here, kWarp - 1);
            count = __shfl_sync(0xffffffffu, count_here, kWarp - 1);
        }
    }
}

} // namespace
} // namespace pyxai::cuda
