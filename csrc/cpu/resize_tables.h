// Fills the tables of a Resize. For the drivers only: what is inline here must not get into the
// units of the instruction sets.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../common/bilinear.h"
#include "resize.h"

namespace pyxai::cpu {

// Floats of memory that the tables take.
inline std::int64_t resize_tables(std::int64_t height, std::int64_t width) {
    return 3 * padded(width) + 2 * padded(height);
}

// Each column is repeated, `repeat` times in all, so that the result is `repeat` times as wide as
// `columns`: rows of pixels with several channels.
inline Resize make_resize(std::int64_t source_height, std::int64_t source_width,
                          std::int64_t height, std::int64_t columns, std::int64_t repeat,
                          void* memory) {
    const std::int64_t width = columns * repeat;
    std::int32_t* const low = static_cast<std::int32_t*>(memory);
    std::int32_t* const high = low + padded(width);
    float* const weight = reinterpret_cast<float*>(high + padded(width));
    std::int32_t* const row_low = reinterpret_cast<std::int32_t*>(weight + padded(width));
    float* const row_weight = reinterpret_cast<float*>(row_low + padded(height));
    const float across = static_cast<float>(source_width) / static_cast<float>(columns);
    for (std::int64_t x = 0; x < columns; ++x) {
        const Tap tap = bilinear_tap(x, source_width, across);
        low[x] = tap.low;
        high[x] = tap.high;
        weight[x] = tap.weight;
    }
    if (repeat > 1) {
        // In place, from the end: what is still to be read lies before what is written.
        for (std::int64_t x = columns - 1; x >= 0; --x) {
            std::fill_n(low + x * repeat, repeat, std::int32_t{low[x]});
            std::fill_n(high + x * repeat, repeat, std::int32_t{high[x]});
            std::fill_n(weight + x * repeat, repeat, float{weight[x]});
        }
    }
    // The padding is read, so it must hold indices that exist.
    std::fill(low + width, low + padded(width), 0);
    std::fill(high + width, high + padded(width), 0);
    std::fill(weight + width, weight + padded(width), 0.0f);
    const float down = static_cast<float>(source_height) / static_cast<float>(height);
    for (std::int64_t y = 0; y < height; ++y) {
        const Tap tap = bilinear_tap(y, source_height, down);
        row_low[y] = tap.low;
        row_weight[y] = tap.weight;
    }
    return Resize{source_height, source_width, height,  width,     low,
                  high,          weight,       row_low, row_weight};
}

} // namespace pyxai::cpu
