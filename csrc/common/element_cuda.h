// Elements of any storage type as float32, and back; included by the CUDA kernels alone.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "dtype.h"

namespace pyxai::cuda {
namespace {

template <DType type> struct Element;

template <> struct Element<DType::kFloat32> {
    using Storage = float;
    static __device__ float widen(float value) {
        return value;
    }
    static __device__ float narrow(float value) {
        return value;
    }
};

template <> struct Element<DType::kBFloat16> {
    using Storage = unsigned short;
    static __device__ float widen(unsigned short bits) {
        return __uint_as_float(static_cast<unsigned>(bits) << 16);
    }
    static __device__ unsigned short narrow(float value) {
        return __bfloat16_as_ushort(__float2bfloat16_rn(value));
    }
};

template <> struct Element<DType::kFloat16> {
    using Storage = unsigned short;
    static __device__ float widen(unsigned short bits) {
        return __half2float(__ushort_as_half(bits));
    }
    static __device__ unsigned short narrow(float value) {
        return __half_as_ushort(__float2half_rn(value));
    }
};

__device__ inline float4 read_four(const float* p) {
    return __ldg(reinterpret_cast<const float4*>(p));
}

__device__ inline ushort4 read_four(const unsigned short* p) {
    return __ldg(reinterpret_cast<const ushort4*>(p));
}

__device__ inline void write_four(float* p, float a, float b, float c, float d) {
    *reinterpret_cast<float4*>(p) = make_float4(a, b, c, d);
}

__device__ inline void write_four(unsigned short* p, unsigned short a, unsigned short b,
                                  unsigned short c, unsigned short d) {
    *reinterpret_cast<ushort4*>(p) = make_ushort4(a, b, c, d);
}

} // namespace
} // namespace pyxai::cuda
