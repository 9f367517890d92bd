// The penalty and the step of masks, alone and together, the device side; included by mask.cu
// alone.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "../common/cuda_launch.h"
#include "mask.h"

namespace pyxai::cuda {
namespace {

constexpr int kCellThreads = 256;

// Of a cell: the total variation, and its slopes by the two differences.
struct Variation {
    float value, across, down;
};

__device__ inline float sign_of(float value) {
    return value > 0.0f ? 1.0f : (value < 0.0f ? -1.0f : 0.0f);
}

// power / value, the slope but for a factor, with the sign of the difference; 0 at 0.
__device__ inline float slope_of(float power, float value) {
    return value != 0.0f ? power / value : 0.0f;
}

__device__ inline Variation variation(float across, float down, float beta, bool root) {
    constexpr float smooth = kPenaltySmooth;
    const float a = fabsf(across), d = fabsf(down);
    if (beta == 1.0f) { // the root changes nothing
        return {a + d, sign_of(across), sign_of(down)};
    }
    if (beta == 2.0f) {
        const float squares = fmaf(across, across, down * down);
        if (!root) {
            return {squares, across + across, down + down};
        }
        const float sum = fmaf(smooth, smooth, squares);
        const float rooted = sqrtf(sum);
        return {rooted - smooth, across / rooted, down / rooted};
    }
    if (beta == 3.0f) {
        const float across2 = across * a, down2 = down * d; // signed squares
        const float cubes = fmaf(across, across2, down * down2);
        if (!root) {
            return {cubes, 3.0f * across2, 3.0f * down2};
        }
        const float inverse = rcbrtf(fmaf(smooth * smooth, smooth, cubes));
        const float square = inverse * inverse;
        return {fmaf(fmaf(smooth * smooth, smooth, cubes), square, -smooth), across2 * square,
                down2 * square};
    }
    if (!root) {
        const float across_power = powf(a, beta), down_power = powf(d, beta);
        return {across_power + down_power, beta * slope_of(across_power, across),
                beta * slope_of(down_power, down)};
    }
    // In units of the greatest, so that no power is too large or too small.
    const float greatest = fmaxf(smooth, fmaxf(a, d));
    const float across_power = powf(a / greatest, beta), down_power = powf(d / greatest, beta);
    const float sum = across_power + down_power + powf(smooth / greatest, beta);
    const float rooted = powf(sum, 1.0f / beta), slope = rooted / sum;
    return {fmaf(greatest, rooted, -smooth), slope * slope_of(across_power, across / greatest),
            slope * slope_of(down_power, down / greatest)};
}

struct PenaltyParams {
    const float* masks; // [M, h, w]
    float* slopes;      // [M, h, w], or null
    float* partials;    // [M, kPenaltyParts], of large masks
    float* costs;       // [M]
    std::int64_t count;
    int height, width;
    float rough, far, beta;
    bool root;
};

__device__ inline Variation variation_at(const PenaltyParams& params, const float* cell, int y,
                                         int x) {
    const float here = *cell;
    const float across = x + 1 < params.width ? cell[1] - here : 0.0f;
    const float down = y + 1 < params.height ? cell[params.width] - here : 0.0f;
    return variation(across, down, params.beta, params.root);
}

// What a cell costs, and the slope by it.
struct CellCost {
    float cost, slope;
};

// What neighbours add to a slope is computed again in each cell.
__device__ inline CellCost cell_cost(const PenaltyParams& params, const float* mask, int i,
                                     bool with_slope) {
    const int y = i / params.width, x = i % params.width;
    const float* const cell = mask + i;
    const float here = *cell;
    const Variation own = variation_at(params, cell, y, x);
    const float distance = here > 1.0f ? here - 1.0f : 1.0f - here;
    CellCost found{fmaf(params.rough, own.value, params.far * distance), 0.0f};
    if (with_slope) {
        float in = x > 0 ? variation_at(params, cell - 1, y, x - 1).across : 0.0f;
        in += y > 0 ? variation_at(params, cell - params.width, y - 1, x).down : 0.0f;
        found.slope = fmaf(params.rough, in - (own.across + own.down),
                           here > 1.0f ? params.far : -params.far);
    }
    return found;
}

// The sum over the block, in the first thread, in a fixed order.
__device__ inline float block_sum(float value) {
    __shared__ float values[kCellThreads];
    values[threadIdx.x] = value;
    for (int half = kCellThreads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            values[threadIdx.x] += values[threadIdx.x + half];
        }
    }
    __syncthreads();
    return values[0];
}

// Of large masks. grid: (kPenaltyParts, 1, M).
__global__ void __launch_bounds__(kCellThreads) penalty_kernel(const PenaltyParams params) {
    const std::int64_t cells = std::int64_t{params.height} * params.width;
    const std::int64_t begin = cells * blockIdx.x / kPenaltyParts;
    const std::int64_t end = cells * (blockIdx.x + 1) / kPenaltyParts;
    for (std::int64_t m = blockIdx.z; m < params.count; m += gridDim.z) {
        const float* const mask = params.masks + m * cells;
        float costs = 0.0f;
        for (std::int64_t i = begin + threadIdx.x; i < end; i += kCellThreads) {
            const CellCost found =
                cell_cost(params, mask, static_cast<int>(i), params.slopes != nullptr);
            costs += found.cost;
            if (params.slopes != nullptr) {
                params.slopes[m * cells + i] = found.slope;
            }
        }
        const float sum = block_sum(costs);
        if (threadIdx.x == 0) {
            params.partials[m * kPenaltyParts + blockIdx.x] = sum;
        }
        __syncthreads();
    }
}

__global__ void __launch_bounds__(kCellThreads)
    penalty_sum_kernel(const float* partials, float* costs, std::int64_t count) {
    const std::int64_t m = std::int64_t{blockIdx.x} * kCellThreads + threadIdx.x;
    if (m < count) {
        float sum = 0.0f;
        for (int i = 0; i < kPenaltyParts; ++i) {
            sum += partials[m * kPenaltyParts + i];
        }
        costs[m] = sum;
    }
}

// ---- step ----

// What all cells share in a step of Adam.
struct StepNumbers {
    float rate, second_scale, rest1, beta2, rest2, eps;
};

// For all threads of the block, which wait.
__device__ inline StepNumbers step_numbers(const StepArgs& args) {
    __shared__ float rate, second_scale;
    if (threadIdx.x == 0) {
        const auto number =
            static_cast<double>(args.step_address == nullptr ? args.step : *args.step_address);
        rate = static_cast<float>(args.learning_rate / (1.0 - pow(args.beta1, number)));
        second_scale = static_cast<float>(1.0 / sqrt(1.0 - pow(args.beta2, number)));
    }
    __syncthreads();
    return {rate,
            second_scale,
            static_cast<float>(1.0 - args.beta1),
            static_cast<float>(args.beta2),
            static_cast<float>(1.0 - args.beta2),
            static_cast<float>(args.eps)};
}

__device__ inline void step_cell(const StepArgs& args, const StepNumbers& numbers, std::int64_t i,
                                 float gradient) {
    const float first = fmaf(gradient - args.first[i], numbers.rest1, args.first[i]);
    const float second = fmaf(numbers.beta2, args.second[i], numbers.rest2 * gradient * gradient);
    const float scale = fmaf(sqrtf(second), numbers.second_scale, numbers.eps);
    float mask = fmaf(-numbers.rate, first / scale, args.masks[i]);
    mask = mask > 1.0f ? 1.0f : mask; // NaN stays NaN
    args.masks[i] = mask < 0.0f ? 0.0f : mask;
    args.first[i] = first;
    args.second[i] = second;
}

// `slopes` are those of the penalty, or null.
__global__ void __launch_bounds__(kCellThreads)
    step_kernel(const StepArgs args, const float* slopes) {
    const StepNumbers numbers = step_numbers(args);
    const std::int64_t step = std::int64_t{gridDim.x} * kCellThreads;
    for (std::int64_t i = std::int64_t{blockIdx.x} * kCellThreads + threadIdx.x; i < args.count;
         i += step) {
        const float gradient = args.gradients[i];
        step_cell(args, numbers, i, slopes == nullptr ? gradient : gradient + slopes[i]);
    }
}

// ---- small masks: a block holds one in shared memory, so that it may change in place ----

enum class Learning { kPenalty, kStep }; // the latter with the penalty

template <Learning learning>
__global__ void __launch_bounds__(kCellThreads)
    small_mask_kernel(const PenaltyParams params, const StepArgs args) {
    __shared__ float mask[kSmallMask];
    StepNumbers numbers{};
    if constexpr (learning == Learning::kStep) {
        numbers = step_numbers(args);
    }
    const int cells = params.height * params.width;
    for (std::int64_t m = blockIdx.x; m < params.count; m += gridDim.x) {
        for (int i = threadIdx.x; i < cells; i += kCellThreads) {
            mask[i] = params.masks[m * cells + i];
        }
        __syncthreads();
        float costs = 0.0f;
        for (int i = threadIdx.x; i < cells; i += kCellThreads) {
            const std::int64_t at = m * cells + i;
            if constexpr (learning == Learning::kStep) {
                const CellCost found = cell_cost(params, mask, i, true);
                costs += found.cost;
                step_cell(args, numbers, at, args.gradients[at] + found.slope);
            } else {
                const CellCost found = cell_cost(params, mask, i, params.slopes != nullptr);
                costs += found.cost;
                if (params.slopes != nullptr) {
                    params.slopes[at] = found.slope;
                }
            }
        }
        const float sum = block_sum(costs);
        if (threadIdx.x == 0) {
            params.costs[m] = sum;
        }
        __syncthreads();
    }
}

} // namespace
} // namespace pyxai::cuda
