// Bilinear resizing of maps, cut into rows: what the drivers prepare (resize_tables.h) and the
// bodies of all instruction sets read (resize_impl.h).
#pragma once

#include <cstdint>

namespace pyxai::cpu {

struct Resize {
    std::int64_t source_height, source_width, height, width;
    const std::int32_t* low; // [width] taps across, see bilinear.h
    const std::int32_t* high;
    const float* weight;
    const std::int32_t* row_low; // [height] taps down; the higher one is the next, or the same
    const float* row_weight;
};

// Rows are padded so that a vector that starts inside one ends inside it, whatever its alignment.
// Internal linkage, like all that the units of several instruction sets include.
static inline std::int64_t padded(std::int64_t elements) {
    return (elements + 15) / 16 * 16 + 64;
}

// Floats of scratch memory for one source row, and two of them at full width.
static inline std::int64_t resize_scratch(std::int64_t source_width, std::int64_t width) {
    return padded(source_width) + 2 * padded(width);
}

} // namespace pyxai::cpu
