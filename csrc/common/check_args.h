// What the checks of arguments have in common; for the *_check.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "check.h"
#include "dtype.h"

namespace pyxai {

// Taps are 32-bit indices.
constexpr std::int64_t kLongest = std::int64_t{1} << 30;

// More elements than lie in any memory, and few enough to multiply with what a kernel has.
constexpr std::int64_t kMostElements = std::int64_t{1} << 40;

// A tensor of these sizes; where one of them is 0, the others may still not be of any length.
inline void check_sizes(const char* name, std::initializer_list<std::int64_t> sizes) {
    std::int64_t product = 1;
    for (const std::int64_t size : sizes) {
        PYXAI_CHECK(size >= 0, std::string(name) + ": negative size");
        PYXAI_CHECK(size <= kMostElements / product, std::string(name) + ": too many elements");
        product *= std::max<std::int64_t>(size, 1);
    }
}

inline void check_dtype(const char* name, DType dtype) {
    const int number = static_cast<int>(dtype);
    PYXAI_CHECK(number >= 0 && number <= 2, std::string(name) + ": unknown dtype");
}

// Elements of so many bytes. Compilers rely on that, and CUDA stops without.
inline void check_aligned(const char* name, const void* address, std::int64_t bytes) {
    if (reinterpret_cast<std::uintptr_t>(address) % static_cast<std::uintptr_t>(bytes) != 0) {
        throw std::invalid_argument(std::string(name) + ": expected memory aligned to its " +
                                    std::to_string(bytes) +
                                    "-byte elements, got none; a copy (clone) has that");
    }
}

} // namespace pyxai
