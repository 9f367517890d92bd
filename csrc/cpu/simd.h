// Vectors of float32 and int32 as wide as the instruction set of the including unit, written with the
// vector extension that GCC and Clang share; intrinsics only where the compilers need telling.
// Everything here has internal linkage: the linker must never keep one unit's copy for another.
#pragma once

#include <cstdint>
#include <cstring>

#include "../common/dtype.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef std::int32_t IntVec __attribute__((vector_size(kLanes * 4)));
typedef std::uint32_t UintVec __attribute__((vector_size(kLanes * 4)));
typedef std::uint16_t ShortVec __attribute__((vector_size(kLanes * 2)));

static inline Vec broadcast(float x) {
    return Vec{} + x;
}

static inline Vec load(const float* p) {
    Vec v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

static inline IntVec load(const std::int32_t* p) {
    IntVec v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

static inline void store(float* p, Vec v) {
    std::memcpy(p, &v, sizeof v);
}

// The first `count` < kLanes elements; the others are zero, or untouched in memory.
static inline Vec load_part(const float* p, std::int64_t count) {
#if defined(__AVX512F__)
    const __mmask16 mask = static_cast<__mmask16>((1u << count) - 1u);
    return reinterpret_cast<Vec>(_mm512_maskz_loadu_ps(mask, p));
#else
    Vec v{};
    for (std::int64_t i = 0; i < count; ++i) {
        v[i] = p[i];
    }
    return v;
#endif
}

static inline void store_part(float* p, Vec v, std::int64_t count) {
#if defined(__AVX512F__)
    const __mmask16 mask = static_cast<__mmask16>((1u << count) - 1u);
    _mm512_mask_storeu_ps(p, mask, reinterpret_cast<__m512>(v));
#else
    for (std::int64_t i = 0; i < count; ++i) {
        p[i] = v[i];
    }
#endif
}

static inline float sum(Vec v) {
    float lanes[kLanes];
    std::memcpy(lanes, &v, sizeof v);
    for (int half = kLanes / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; ++i) {
            lanes[i] += lanes[i + half];
        }
    }
    return lanes[0];
}

// Bypasses the cache; p is aligned to the vector.
static inline void stream(float* p, Vec v) {
#if defined(__AVX512F__)
    _mm512_stream_ps(p, reinterpret_cast<__m512>(v));
#elif defined(__AVX2__)
    _mm256_stream_ps(p, reinterpret_cast<__m256>(v));
#elif defined(__SSE2__)
    _mm_stream_ps(p, reinterpret_cast<__m128>(v));
#else
    store(p, v);
#endif
}

static inline void stream_fence() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

// table[index] for each lane.
static inline Vec gather(const float* table, IntVec index) {
#if defined(__AVX512F__)
    return reinterpret_cast<Vec>(_mm512_i32gather_ps(reinterpret_cast<__m512i>(index), table, 4));
#elif defined(__AVX2__)
    return reinterpret_cast<Vec>(_mm256_i32gather_ps(table, reinterpret_cast<__m256i>(index), 4));
#else
    Vec v;
    for (int i = 0; i < kLanes; ++i) {
        v[i] = table[index[i]];
    }
    return v;
#endif
}

// The low byte of each lane.
static inline void store_bytes(std::uint8_t* p, IntVec v) {
#if defined(__AVX512F__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm512_cvtepi32_epi8(reinterpret_cast<__m512i>(v)));
#else
    typedef std::uint8_t ByteVec __attribute__((vector_size(kLanes)));
    const ByteVec bytes = __builtin_convertvector(v, ByteVec);
    std::memcpy(p, &bytes, sizeof bytes);
#endif
}

// ---- elements of any storage type as float32 ----

static inline Vec widen_bfloat16(ShortVec bits) {
    return reinterpret_cast<Vec>(__builtin_convertvector(bits, UintVec) << 16);
}

static inline Vec widen_float16(ShortVec bits) {
#if defined(__AVX512F__)
    return reinterpret_cast<Vec>(_mm512_cvtph_ps(reinterpret_cast<__m256i>(bits)));
#elif defined(__AVX2__)
    return reinterpret_cast<Vec>(_mm256_cvtph_ps(reinterpret_cast<__m128i>(bits)));
#else
    const UintVec wide = __builtin_convertvector(bits, UintVec);
    const UintVec sign = (wide & 0x8000u) << 16;
    const UintVec magnitude = (wide & 0x7fffu) << 13;
    // Shifting the exponent by multiplication makes subnormals come out right.
    const Vec scaled = reinterpret_cast<Vec>(magnitude) * 0x1p112f;
    const UintVec special = reinterpret_cast<UintVec>((wide & 0x7c00u) == 0x7c00u);
    const UintVec value = reinterpret_cast<UintVec>(scaled) | (special & 0x7f800000u);
    return reinterpret_cast<Vec>(value | sign);
#endif
}

template <pyxai::DType type> struct Element;

template <> struct Element<pyxai::DType::kFloat32> {
    typedef float Storage;
    static Vec read(const Storage* p) {
        return load(p);
    }
    static Vec read_part(const Storage* p, std::int64_t count) {
        return load_part(p, count);
    }
};

template <> struct Element<pyxai::DType::kBFloat16> {
    typedef std::uint16_t Storage;
    static Vec read(const Storage* p) {
        ShortVec bits;
        std::memcpy(&bits, p, sizeof bits);
        return widen_bfloat16(bits);
    }
    static Vec read_part(const Storage* p, std::int64_t count) {
        ShortVec bits{};
        std::memcpy(&bits, p, static_cast<std::size_t>(count) * sizeof(Storage));
        return widen_bfloat16(bits);
    }
};

template <> struct Element<pyxai::DType::kFloat16> {
    typedef std::uint16_t Storage;
    static Vec read(const Storage* p) {
        ShortVec bits;
        std::memcpy(&bits, p, sizeof bits);
        return widen_float16(bits);
    }
    static Vec read_part(const Storage* p, std::int64_t count) {
        ShortVec bits{};
        std::memcpy(&bits, p, static_cast<std::size_t>(count) * sizeof(Storage));
        return widen_float16(bits);
    }
};

} // namespace
