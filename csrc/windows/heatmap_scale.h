// Scores as 64-bit integers, and sums of them as means: the same on the CPU and on CUDA.
#pragma once

#include <cmath>
#include <cstdint>

#include "../common/bilinear.h"

namespace pyxai {

// The power of two that makes integers of scores of this magnitude: no sum of `count` passes 2^61.
static inline PYXAI_HOST_DEVICE int heatmap_shift(float largest, std::int64_t count) {
    int exponent = 0;
    frexp(largest, &exponent); // largest < 2^exponent
    int bits = 0;
    while (count >> bits != 0) {
        ++bits;
    }
    return 61 - bits - exponent;
}

static inline PYXAI_HOST_DEVICE float heatmap_mean(std::int64_t sum, std::int64_t count,
                                                   double unit) {
    return count == 0
               ? NAN
               : static_cast<float>(static_cast<double>(sum) * unit / static_cast<double>(count));
}

} // namespace pyxai
