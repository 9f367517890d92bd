// bfloat16 by bits; rounds to nearest, ties to even, as the device does.
#pragma once

#include "cuda_runtime.h"

struct __nv_bfloat16 {
    unsigned short bits;
};

inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) {
    return value.bits;
}

inline __nv_bfloat16 __float2bfloat16_rn(float value) {
    if (std::isnan(value)) {
        return {0x7fff};
    }
    const unsigned bits = __float_as_uint(value);
    return {static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
