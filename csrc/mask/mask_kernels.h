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

struct MaskKernels {
    void (*blend_under_mask)(const BlendPiece&);
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
