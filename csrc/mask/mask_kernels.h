// The pieces of work of the mask kernels that exist once per instruction set. mask_cpu.cpp cuts the
// whole into pieces and spreads them over threads; the bodies are in the *_impl.h beside it.
#pragma once

#include <cstdint>

#include "../common/dtype.h"
#include "../cpu/resize.h"
#include "mask.h"

namespace pyxai::cpu {

// Rows blended at a time: what the mask has there is loaded once for all.
constexpr int kBlendRows = 4;

// A source of one mask: its rows are those of the result, or are gathered into a strip first.
struct BlendRows {
    BlendSource source; // data of this mask
    bool in_place;
    void* strip; // room for kBlendRows rows of every plane
};

// Some rows under one mask. A row of the result holds the pixels of one channel, and each channel
// is a plane of its own; when channels come last, it holds all channels, and there is one plane.
struct BlendPiece {
    const float* mask; // [source_height, source_width]
    Resize resize;     // to rows of the result
    BlendRows image, background;
    DType dtype;
    bool channels_last;
    std::int64_t channels, columns;
    std::int64_t row_begin, row_end;
    float* scratch; // resize_scratch(...) floats, 64-byte aligned
    void* out;      // of this mask, all of it
    bool streamed;  // past the cache; then rows are aligned to 64 bytes
};

// Rows of a mask whose slopes are gathered at a time, at most: one in each lane.
constexpr int kSlopeRows = 16;

// The slopes of one mask by some rows of the result. Rows that lie between the same two rows of the
// mask belong to one piece.
struct BlendSlopesPiece {
    BlendPiece blend;      // without what is written; scratch for slope_scratch(...) floats
    const void* gradients; // of the result, of this mask, all of it
    float* slopes;         // of this mask, all of it
    std::int64_t owned_begin, owned_end; // rows of the mask that this piece writes, all of them
    float* carry;      // what it adds to the row of the mask before those; null: there is none
    bool same_columns; // the mask is as wide as the result
};

static inline std::int64_t slope_scratch(std::int64_t mask_width, std::int64_t width) {
    return kSlopeRows * (padded(width) + padded(mask_width));
}

// Some rows of gradients of the result, summed over all masks.
struct ShownSumPiece {
    BlendPiece blend;      // mask: the first one; out: all of it; scratch for a resize and `sums`
    const void* gradients; // [M, ...], the first one
    std::int64_t count;    // M
    float* sums;           // room for the rows, in all channels, each padded
};

struct PenaltyPiece {
    const float* mask; // [height, width]
    float* slopes;     // of this mask, or null
    std::int64_t height, width, row_begin, row_end;
    float variation, distance; // weights
    float beta;
    bool root;
    float* above; // padded(width) floats
};

struct StepPiece {
    float* masks;
    const float* gradients;
    float *first, *second;
    std::int64_t count;
    float rest1, beta2, rest2; // 1 - beta1, beta2, 1 - beta2
    float rate;                // learning rate / (1 - beta1^step)
    float second_scale;        // 1 / sqrt(1 - beta2^step)
    float eps;
};

struct MaskKernels {
    void (*blend_under_mask)(const BlendPiece&);
    void (*blend_slopes)(const BlendSlopesPiece&);
    void (*sum_shown)(const ShownSumPiece&);
    float (*penalize_rows)(const PenaltyPiece&); // the costs of the rows
    void (*step_cells)(const StepPiece&);
};

namespace baseline {
extern const MaskKernels kMaskKernels;
}
namespace avx2 {
extern const MaskKernels kMaskKernels;
}
namespace avx512 {
extern const MaskKernels kMaskKernels;
}
namespace avx512vbmi {
extern const MaskKernels kMaskKernels;
}

} // namespace pyxai::cpu
