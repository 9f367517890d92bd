// Cuts the penalty and the step of masks into pieces and spreads them over threads.
#include "mask.h"

#include <cmath>

#include "../common/parallel.h"
#include "../cpu/dispatch.h"
#include "mask_kernels.h"

namespace pyxai::cpu {

namespace {

// Cells of a band: the order of the sums depends on the size of a mask alone.
constexpr std::int64_t kBandCells = 16384;
// Element operations that a cell costs, about.
constexpr std::int64_t kCellWork = 8;
// Cells that a thread steps at a time.
constexpr std::int64_t kStepCells = 16384;

std::int64_t band_rows(const PenaltyArgs& args) {
    return std::max<std::int64_t>(1, kBandCells / args.width);
}

std::int64_t bands(const PenaltyArgs& args) {
    const std::int64_t rows = band_rows(args);
    return (args.height + rows - 1) / rows;
}

bool is_empty(const PenaltyArgs& args) {
    return args.count == 0 || args.height == 0 || args.width == 0;
}

} // namespace

std::int64_t penalty_workspace(const PenaltyArgs& args, int num_threads) {
    return is_empty(args)
               ? 0
               : 4 * (padded(args.count * bands(args)) + num_threads * padded(args.width));
}

void penalty(const PenaltyArgs& args, void* workspace, int num_threads) {
    if (is_empty(args)) {
        std::fill_n(args.costs, args.count, 0.0f);
        return;
    }
    const MaskKernels& kernels = mask_kernels();
    const std::int64_t band_count = bands(args), rows = band_rows(args);
    const std::int64_t cells = args.height * args.width;
    float* const costs = static_cast<float*>(workspace);
    float* const scratch = costs + padded(args.count * band_count);
    const float divisor = args.mean ? static_cast<float>(cells) : 1.0f;
    parallel_for(args.count * band_count, std::min(cells, rows * args.width) * kCellWork,
                 num_threads, [&](std::int64_t begin, std::int64_t end, int thread) {
                     for (std::int64_t i = begin; i < end; ++i) {
                         const std::int64_t m = i / band_count, row = i % band_count * rows;
                         PenaltyPiece piece;
                         piece.mask = args.masks + m * cells;
                         piece.slopes = args.slopes == nullptr ? nullptr : args.slopes + m * cells;
                         piece.height = args.height;
                         piece.width = args.width;
                         piece.row_begin = row;
                         piece.row_end = std::min(row + rows, args.height);
                         piece.variation = args.variation_weight / divisor;
                         piece.distance = args.distance_weight / divisor;
                         piece.beta = args.beta;
                         piece.root = args.root;
                         piece.above = scratch + thread * padded(args.width);
                         costs[i] = kernels.penalize_rows(piece);
                     }
                 });
    for (std::int64_t m = 0; m < args.count; ++m) {
        double sum = 0.0;
        for (std::int64_t i = 0; i < band_count; ++i) {
            sum += static_cast<double>(costs[m * band_count + i]);
        }
        args.costs[m] = static_cast<float>(sum);
    }
}

void step(const StepArgs& args, int num_threads) {
    const MaskKernels& kernels = mask_kernels();
    const auto number =
        static_cast<double>(args.step_address == nullptr ? args.step : *args.step_address);
    StepPiece whole{};
    whole.rest1 = static_cast<float>(1.0 - args.beta1);
    whole.beta2 = static_cast<float>(args.beta2);
    whole.rest2 = static_cast<float>(1.0 - args.beta2);
    whole.rate = static_cast<float>(args.learning_rate / (1.0 - std::pow(args.beta1, number)));
    whole.second_scale = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(args.beta2, number)));
    whole.eps = static_cast<float>(args.eps);
    const std::int64_t chunks = (args.count + kStepCells - 1) / kStepCells;
    parallel_for(chunks, std::min(args.count, kStepCells) * kCellWork, num_threads,
                 [&](std::int64_t begin, std::int64_t end, int) {
                     const std::int64_t first = begin * kStepCells;
                     StepPiece piece = whole;
                     piece.masks = args.masks + first;
                     piece.gradients = args.gradients + first;
                     piece.first = args.first + first;
                     piece.second = args.second + first;
                     piece.count = std::min(end * kStepCells, args.count) - first;
                     kernels.step_cells(piece);
                 });
}

std::int64_t penalized_step_workspace(const PenalizedStepArgs& args, int num_threads) {
    return 4 * padded(args.step.count) + penalty_workspace(args.penalty, num_threads);
}

void penalized_step(const PenalizedStepArgs& args, void* workspace, int num_threads) {
    float* const slopes = static_cast<float*>(workspace);
    PenaltyArgs penalty_args = args.penalty;
    penalty_args.slopes = slopes;
    penalty(penalty_args, slopes + padded(args.step.count), num_threads);
    for (std::int64_t i = 0; i < args.step.count; ++i) {
        slopes[i] += args.step.gradients[i];
    }
    StepArgs step_args = args.step;
    step_args.gradients = slopes;
    step(step_args, num_threads);
}

} // namespace pyxai::cpu
