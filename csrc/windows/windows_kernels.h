// The pieces of work of the window kernels that exist once per instruction set. crop_cpu.cpp cuts
// the whole into pieces and spreads them over threads; the bodies are in crop_impl.h.
#pragma once

#include <cstdint>

#include "../common/dtype.h"
#include "../cpu/resize.h"
#include "windows.h"

namespace pyxai::cpu {

// Rows of the result hold the pixels of one channel, and each channel is a plane of its own; when
// channels come last, they hold all channels, and there is one plane.

// Taps across, for each vector of a row of the result. Indices count from the vector's base, so
// that the elements it needs are few and fit into registers.
struct WindowColumns {
    const std::int32_t* base; // [vectors]
    const std::int32_t* low;  // [elements, padded to vectors]
    const std::int32_t* high;
    const float* weight;
    std::int64_t span; // no index is as large
};

struct CropPiece {
    WindowPhoto photo; // data of this box
    bool in_place;     // its rows are laid out like those of the result; otherwise they go ...
    void* strip;       // ... through here: room for a row of all channels
    const float* scale;
    const float* shift;  // [period], of one plane after the other
    std::int64_t period; // a multiple of the vector
    bool channels_last;
    std::int64_t channels, box_width;
    bool resized;
    WindowColumns columns;
    Resize resize;  // rows, and elements of a row; the columns are above
    float* scratch; // for a row of the box and two of the result, padded
    std::int64_t row_begin, row_end;
    void* out; // of this box, all of it
    DType dtype;
    bool streamed; // past the cache; then rows are aligned to 64 bytes
};

// Rows of the photo into the layout of the result: [C, rows, columns], or [rows, columns, C].
struct RearrangePiece {
    WindowPhoto photo; // data of the first column in row 0
    bool channels_last;
    std::int64_t channels, rows, columns;
    std::int64_t row_begin, row_end;
    void* out;
};

struct WindowKernels {
    std::int64_t lanes;
    void (*crop_window)(const CropPiece&);
    void (*rearrange_rows)(const RearrangePiece&);
};

namespace baseline {
extern const WindowKernels kWindowKernels;
}
namespace avx2 {
extern const WindowKernels kWindowKernels;
}
namespace avx512 {
extern const WindowKernels kWindowKernels;
}
namespace avx512vbmi {
extern const WindowKernels kWindowKernels;
}

} // namespace pyxai::cpu
