// Half precision by bits; rounds to nearest, ties to even, as the device does.
#pragma once

#include "cuda_runtime.h"

struct __half {
    unsigned short bits;
};

inline __half __ushort_as_half(unsigned short bits) {
    return {bits};
}

inline unsigned short __half_as_ushort(__half value) {
    return value.bits;
}

inline float __half2float(__half value) {
    const int exponent = value.bits >> 10 & 31, fraction = value.bits & 1023;
    const float sign = value.bits >> 15 != 0 ? -1.0f : 1.0f;
    if (exponent == 31) {
        return fraction != 0 ? NAN : sign * INFINITY;
    }
    return sign * (exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                 : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25));
}

inline __half __float2half_rn(float value) {
    const unsigned sign = __float_as_uint(value) >> 16 & 0x8000;
    const float size = std::fabs(value);
    unsigned bits;
    if (std::isnan(value)) {
        bits = 0x7fff;
    } else if (size >= 65520.0f) { // halfway from the greatest finite number, and beyond
        bits = sign | 0x7c00;
    } else if (size < 6.103515625e-05f) { // subnormal: steps of 2^-24
        bits = sign | static_cast<unsigned>(std::nearbyint(std::ldexp(size, 24)));
    } else {
        const unsigned wide = __float_as_uint(size) - (112u << 23);
        bits = sign | ((wide + 0xfff + (wide >> 13 & 1)) >> 13);
    }
    return {static_cast<unsigned short>(bits)};
}
