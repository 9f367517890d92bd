// Arithmetic of vectors that the mask kernels need: bodies, compiled once per instruction set.
// Included inside namespace pyxai::cpu::PYXAI_ISA { namespace { ... } }.

inline IntVec lane_numbers() {
    IntVec lanes;
    for (int i = 0; i < kLanes; ++i) {
        lanes[i] = i;
    }
    return lanes;
}

// The lanes from `count` on become 0, whatever they hold.
inline Vec keep_first(Vec value, std::int64_t count) {
    const IntVec limit = IntVec{} + static_cast<std::int32_t>(count);
    return lane_numbers() < limit ? value : Vec{};
}

inline Vec magnitude(Vec value) {
    return reinterpret_cast<Vec>(reinterpret_cast<IntVec>(value) & 0x7fffffff);
}

inline Vec sign_of(Vec value) {
    const Vec one = broadcast(1.0f);
    return value > 0.0f ? one : (value < 0.0f ? -one : Vec{});
}

// max(limit, value); NaN stays NaN.
inline Vec at_least(Vec limit, Vec value) {
    return limit > value ? limit : value;
}

inline Vec square_root(Vec value) {
#if defined(__AVX512F__)
    return reinterpret_cast<Vec>(_mm512_sqrt_ps(reinterpret_cast<__m512>(value)));
#elif defined(__AVX2__)
    return reinterpret_cast<Vec>(_mm256_sqrt_ps(reinterpret_cast<__m256>(value)));
#elif defined(__SSE2__)
    return reinterpret_cast<Vec>(_mm_sqrt_ps(reinterpret_cast<__m128>(value)));
#else
    for (int i = 0; i < kLanes; ++i) {
        value[i] = __builtin_sqrtf(value[i]);
    }
    return value;
#endif
}

// 1 / sqrt(value) of positive values, to the last places: an estimate and one step of Newton's.
inline Vec inverse_root(Vec value) {
#if defined(__AVX512F__)
    const Vec guess = reinterpret_cast<Vec>(_mm512_rsqrt14_ps(reinterpret_cast<__m512>(value)));
#elif defined(__AVX2__)
    const Vec guess = reinterpret_cast<Vec>(_mm256_rsqrt_ps(reinterpret_cast<__m256>(value)));
#elif defined(__SSE2__)
    const Vec guess = reinterpret_cast<Vec>(_mm_rsqrt_ps(reinterpret_cast<__m128>(value)));
#else
    const Vec guess = broadcast(1.0f) / square_root(value);
#endif
    const Vec half = broadcast(-0.5f) * value * guess;
    return guess * multiply_add(half, guess, broadcast(1.5f));
}

// value^(-1/3) of positive values: a third of the exponent, negated, and Newton's steps.
inline Vec inverse_cube_root(Vec value) {
    const Vec bits = __builtin_convertvector(reinterpret_cast<IntVec>(value), Vec);
    const IntVec guess = __builtin_convertvector(bits * broadcast(-1.0f / 3), IntVec) + 0x54a232a3;
    Vec root = reinterpret_cast<Vec>(guess);
    for (int step = 0; step < 3; ++step) {
        const Vec cube = root * root * root;
        root = root * multiply_add(value * broadcast(-1.0f / 3), cube, broadcast(4.0f / 3));
    }
    return root;
}

// Of positive, normal values.
inline Vec log2_of(Vec value) {
    // value = 2^exponent * fraction, the fraction between sqrt(1/2) and sqrt(2).
    const IntVec bits = reinterpret_cast<IntVec>(value);
    const IntVec exponent = (bits - 0x3f3504f3) >> 23;
    const Vec fraction = reinterpret_cast<Vec>(bits - (exponent << 23));
    const Vec one = broadcast(1.0f);
    const Vec ratio = (fraction - one) / (fraction + one), square = ratio * ratio;
    Vec series = broadcast(2.0f / 9); // 2 artanh(ratio) = 2 ratio (1 + ratio^2 / 3 + ...)
    series = multiply_add(series, square, broadcast(2.0f / 7));
    series = multiply_add(series, square, broadcast(2.0f / 5));
    series = multiply_add(series, square, broadcast(2.0f / 3));
    series = multiply_add(series, square, broadcast(2.0f));
    return multiply_add(ratio * series, broadcast(1.44269504f),
                        __builtin_convertvector(exponent, Vec));
}

// 2^value; 0 below the normal numbers, the greatest above them.
inline Vec exp2_of(Vec value) {
    const Vec limited = at_least(broadcast(-126.0f), at_most(broadcast(127.99999f), value));
    const Vec shift = broadcast(12582912.0f); // adding it rounds to an integer
    const Vec whole = limited + shift - shift;
    const Vec rest = limited - whole;
    Vec series = broadcast(1.52527338e-5f); // ln(2)^k / k!
    series = multiply_add(series, rest, broadcast(1.54035304e-4f));
    series = multiply_add(series, rest, broadcast(1.33335581e-3f));
    series = multiply_add(series, rest, broadcast(9.61812911e-3f));
    series = multiply_add(series, rest, broadcast(5.55041087e-2f));
    series = multiply_add(series, rest, broadcast(2.40226507e-1f));
    series = multiply_add(series, rest, broadcast(6.93147181e-1f));
    series = multiply_add(series, rest, broadcast(1.0f));
    // In two factors: 2^128 alone would not be finite.
    const IntVec exponent = __builtin_convertvector(whole, IntVec);
    const IntVec half = exponent >> 1;
    const Vec first = reinterpret_cast<Vec>((half + 127) << 23);
    const Vec second = reinterpret_cast<Vec>((exponent - half + 127) << 23);
    return value < -126.0f ? Vec{} : series * first * second;
}

// value^exponent of values that are not negative; those below the normal numbers count as 0.
inline Vec power(Vec value, Vec exponent) {
    const Vec least = broadcast(0x1p-126f);
    const Vec result = exp2_of(exponent * log2_of(at_least(least, value)));
    return value >= least ? result : Vec{};
}

// The last lane of `before`, then all lanes of `here` but its last.
inline Vec shift_in(Vec before, Vec here) {
#if defined(__AVX512F__)
    return reinterpret_cast<Vec>(_mm512_alignr_epi32(reinterpret_cast<__m512i>(here),
                                                     reinterpret_cast<__m512i>(before), 15));
#elif defined(__AVX2__)
    const __m256i middle = _mm256_permute2x128_si256(reinterpret_cast<__m256i>(before),
                                                     reinterpret_cast<__m256i>(here), 0x21);
    return reinterpret_cast<Vec>(_mm256_alignr_epi8(reinterpret_cast<__m256i>(here), middle, 12));
#else
    Vec shifted;
    shifted[0] = before[kLanes - 1];
    for (int i = 1; i < kLanes; ++i) {
        shifted[i] = here[i - 1];
    }
    return shifted;
#endif
}
