// Vectors of float32 and int32 as wide as the instruction set of the including unit, written with
// the vector extension that GCC and Clang share; intrinsics only where the compilers need telling.
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

// Not Vec{} + x: adding to zero is an instruction, because of -0.
static inline Vec broadcast(float x) {
#if defined(__AVX512F__)
    return reinterpret_cast<Vec>(_mm512_set1_ps(x));
#elif defined(__AVX2__)
    return reinterpret_cast<Vec>(_mm256_set1_ps(x));
#else
    return Vec{x, x, x, x};
#endif
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

#if defined(__AVX512F__)
static inline __mmask16 first_lanes(std::int64_t count) {
    return static_cast<__mmask16>((1u << count) - 1u);
}
#elif defined(__AVX2__)
static inline __m256i first_lanes(std::int64_t count) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lanes);
}
#endif

// The first `count` < kLanes elements; the others are zero, or untouched in memory.
static inline Vec load_part(const float* p, std::int64_t count) {
#if defined(__AVX512F__)
    return reinterpret_cast<Vec>(_mm512_maskz_loadu_ps(first_lanes(count), p));
#elif defined(__AVX2__)
    return reinterpret_cast<Vec>(_mm256_maskload_ps(p, first_lanes(count)));
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
    _mm512_mask_storeu_ps(p, first_lanes(count), reinterpret_cast<__m512>(v));
#elif defined(__AVX2__)
    _mm256_maskstore_ps(p, first_lanes(count), reinterpret_cast<__m256>(v));
#else
    for (std::int64_t i = 0; i < count; ++i) {
        p[i] = v[i];
    }
#endif
}

// a * b + c with one rounding where the instruction set has that. For sums of two products, which
// compilers may fuse either way: the result must not depend on their choice.
static inline Vec multiply_add(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
    return reinterpret_cast<Vec>(_mm512_fmadd_ps(
        reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#elif defined(__AVX2__)
    return reinterpret_cast<Vec>(_mm256_fmadd_ps(
        reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
#else
    return a * b + c;
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

static inline void stream(std::uint16_t* p, ShortVec v) {
#if defined(__AVX512F__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(v));
#elif defined(__AVX2__)
    _mm_stream_si128(reinterpret_cast<__m128i*>(p), reinterpret_cast<__m128i>(v));
#else
    std::memcpy(p, &v, sizeof v); // half a register has no such store
#endif
}

static inline void stream_fence() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

// table[index] for each lane: tables of at most kRegisterTable entries are permuted in registers.
// The table must be readable up to that size.
#if defined(__AVX512F__)
constexpr std::int64_t kRegisterTable = 32;

static inline Vec permute(const float* table, IntVec index) {
    return reinterpret_cast<Vec>(_mm512_permutex2var_ps(
        _mm512_loadu_ps(table), reinterpret_cast<__m512i>(index), _mm512_loadu_ps(table + kLanes)));
}
#elif defined(__AVX2__)
constexpr std::int64_t kRegisterTable = 8;

static inline Vec permute(const float* table, IntVec index) {
    return reinterpret_cast<Vec>(
        _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), reinterpret_cast<__m256i>(index)));
}
#else
constexpr std::int64_t kRegisterTable = 0;

static inline Vec permute(const float*, IntVec) {
    return Vec{};
}
#endif

// The same for tables no longer than a vector, in fewer steps.
#if defined(__AVX512F__)
constexpr std::int64_t kLaneTable = 16;

static inline Vec permute_lanes(const float* table, IntVec index) {
    return reinterpret_cast<Vec>(
        _mm512_permutexvar_ps(reinterpret_cast<__m512i>(index), _mm512_loadu_ps(table)));
}
#else
constexpr std::int64_t kLaneTable = kRegisterTable;

static inline Vec permute_lanes(const float* table, IntVec index) {
    return permute(table, index);
}
#endif

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

// min(limit, value); NaN stays NaN.
static inline Vec at_most(Vec limit, Vec value) {
#if defined(__AVX512F__)
    return reinterpret_cast<Vec>(
        _mm512_min_ps(reinterpret_cast<__m512>(limit), reinterpret_cast<__m512>(value)));
#elif defined(__AVX2__)
    return reinterpret_cast<Vec>(
        _mm256_min_ps(reinterpret_cast<__m256>(limit), reinterpret_cast<__m256>(value)));
#else
    return limit < value ? limit : value;
#endif
}

#if defined(__AVX512F__)
// Four vectors of integers as bytes, clamped to [0, 255].
static inline __m512i pack_bytes(IntVec a, IntVec b, IntVec c, IntVec d) {
    const __m512i low =
        _mm512_packs_epi32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b));
    const __m512i high =
        _mm512_packs_epi32(reinterpret_cast<__m512i>(c), reinterpret_cast<__m512i>(d));
    // Packing works within 128-bit lanes; this puts the groups of four back in order.
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
}
#endif

// The same into memory.
static inline void store_bytes(std::uint8_t* p, IntVec a, IntVec b, IntVec c, IntVec d) {
#if defined(__AVX512F__)
    _mm512_storeu_si512(p, pack_bytes(a, b, c, d));
#elif defined(__AVX2__)
    const __m256i low =
        _mm256_packs_epi32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b));
    const __m256i high =
        _mm256_packs_epi32(reinterpret_cast<__m256i>(c), reinterpret_cast<__m256i>(d));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order));
#elif defined(__SSE2__)
    const __m128i low = _mm_packs_epi32(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b));
    const __m128i high =
        _mm_packs_epi32(reinterpret_cast<__m128i>(c), reinterpret_cast<__m128i>(d));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(low, high));
#else
    const IntVec parts[4] = {a, b, c, d};
    for (int i = 0; i < 4 * kLanes; ++i) {
        const std::int32_t value = parts[i / kLanes][i % kLanes];
        p[i] = static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
    }
#endif
}

// ---- elements of any storage type as float32 ----

static inline Vec widen_bfloat16(ShortVec bits) {
#if defined(__AVX512F__)
    const __m512i wide = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(bits));
    return reinterpret_cast<Vec>(_mm512_slli_epi32(wide, 16));
#elif defined(__AVX2__)
    const __m256i wide = _mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(bits));
    return reinterpret_cast<Vec>(_mm256_slli_epi32(wide, 16));
#else
    return reinterpret_cast<Vec>(__builtin_convertvector(bits, UintVec) << 16);
#endif
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

// Integers below 2^16 in half the space.
static inline ShortVec to_shorts(UintVec values) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    const __m256i wide = reinterpret_cast<__m256i>(values);
    return reinterpret_cast<ShortVec>(
        _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1)));
#else
    return __builtin_convertvector(values, ShortVec);
#endif
}

// The nearest value, of two as near the even one; NaN stays NaN.
static inline ShortVec narrow_bfloat16(Vec value) {
    const UintVec bits = reinterpret_cast<UintVec>(value);
    const UintVec rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const UintVec quiet = UintVec{} + 0x7fc0u;
    return to_shorts(value == value ? rounded : quiet);
}

static inline ShortVec narrow_float16(Vec value) {
#if defined(__AVX512F__)
    return reinterpret_cast<ShortVec>(
        _mm512_cvtps_ph(reinterpret_cast<__m512>(value), _MM_FROUND_TO_NEAREST_INT));
#elif defined(__AVX2__)
    return reinterpret_cast<ShortVec>(
        _mm256_cvtps_ph(reinterpret_cast<__m256>(value), _MM_FROUND_TO_NEAREST_INT));
#else
    const UintVec bits = reinterpret_cast<UintVec>(value);
    const UintVec magnitude = bits & 0x7fffffffu;
    // The exponent's bias changes from 127 to 15; carries out of the mantissa round it up.
    const UintVec normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    // Adding 0.5 rounds a subnormal in the unit's own arithmetic.
    const Vec shifted = reinterpret_cast<Vec>(magnitude) + 0.5f;
    const UintVec subnormal = reinterpret_cast<UintVec>(shifted) - (126u << 23);
    const UintVec infinity = UintVec{} + 0x7c00u, quiet = UintVec{} + 0x7e00u;
    const UintVec finite = magnitude < (113u << 23) ? subnormal : normal;
    const UintVec special = value == value ? infinity : quiet;
    const UintVec half = magnitude < (143u << 23) ? finite : special;
    return to_shorts(half | ((bits & 0x80000000u) >> 16));
#endif
}

static inline void store_part(std::uint16_t* p, ShortVec v, std::int64_t count) {
#if defined(__AVX512F__)
    _mm256_mask_storeu_epi16(p, first_lanes(count), reinterpret_cast<__m256i>(v));
#else
    for (std::int64_t i = 0; i < count; ++i) {
        p[i] = v[i];
    }
#endif
}

static inline void store(std::uint16_t* p, ShortVec v) {
    std::memcpy(p, &v, sizeof v);
}

static inline ShortVec load_short_part(const std::uint16_t* p, std::int64_t count) {
#if defined(__AVX512F__)
    return reinterpret_cast<ShortVec>(_mm256_maskz_loadu_epi16(first_lanes(count), p));
#else
    ShortVec v{};
    for (std::int64_t i = 0; i < count; ++i) {
        v[i] = p[i];
    }
    return v;
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
    static Vec narrow(Vec value) {
        return value;
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
        return widen_bfloat16(load_short_part(p, count));
    }
    static ShortVec narrow(Vec value) {
        return narrow_bfloat16(value);
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
        return widen_float16(load_short_part(p, count));
    }
    static ShortVec narrow(Vec value) {
        return narrow_float16(value);
    }
};

// Bytes, which are only read.
struct Bytes {
    typedef std::uint8_t Storage;
    static Vec read(const Storage* p) {
#if defined(__AVX512F__)
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        return reinterpret_cast<Vec>(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)));
#elif defined(__AVX2__)
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
        return reinterpret_cast<Vec>(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)));
#else
        typedef std::uint8_t ByteVec __attribute__((vector_size(kLanes)));
        ByteVec bytes;
        std::memcpy(&bytes, p, sizeof bytes);
        return __builtin_convertvector(__builtin_convertvector(bytes, IntVec), Vec);
#endif
    }
    static Vec read_part(const Storage* p, std::int64_t count) {
        Storage bytes[kLanes] = {};
        for (std::int64_t i = 0; i < count; ++i) {
            bytes[i] = p[i];
        }
        return read(bytes);
    }
};

// `count` elements of a row, past the cache where wanted and possible.
template <bool streamed, class Storage, class Value>
static inline void write_some(Storage* to, Value value, std::int64_t count) {
    if (count < kLanes) {
        store_part(to, value, count);
    } else if (streamed) {
        stream(to, value);
    } else {
        store(to, value);
    }
}

} // namespace
