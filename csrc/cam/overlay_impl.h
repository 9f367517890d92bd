// Blending of coloured maps with photos: bodies, compiled once per instruction set.
// Included inside namespace pyxai::cpu::PYXAI_ISA { namespace { ... } }.
//
// (photo * (256 - b) + color * b + 128) >> 8 with b = a + (a >> 7): the sum modulo 2^16 is exact,
// because its true value lies in [128, 65408].

#if defined(__AVX512F__)
inline __m512i blend_shorts(__m512i photo, __m512i color, __m512i blend) {
    const __m512i change = _mm512_mullo_epi16(_mm512_sub_epi16(color, photo), blend);
    const __m512i total = _mm512_add_epi16(_mm512_slli_epi16(photo, 8), change);
    return _mm512_srli_epi16(_mm512_add_epi16(total, _mm512_set1_epi16(128)), 8);
}

inline __m512i to_blend(__m512i alpha) {
    return _mm512_add_epi16(alpha, _mm512_srli_epi16(alpha, 7));
}
#elif defined(__AVX2__)
inline __m256i blend_shorts(__m256i photo, __m256i color, __m256i blend) {
    const __m256i change = _mm256_mullo_epi16(_mm256_sub_epi16(color, photo), blend);
    const __m256i total = _mm256_add_epi16(_mm256_slli_epi16(photo, 8), change);
    return _mm256_srli_epi16(_mm256_add_epi16(total, _mm256_set1_epi16(128)), 8);
}

inline __m256i to_blend(__m256i alpha) {
    return _mm256_add_epi16(alpha, _mm256_srli_epi16(alpha, 7));
}
#endif

#if defined(__AVX512VBMI__)
// 64 pixels at a time, one register for each of red, green and blue; tables of 256 bytes lie in
// four registers each.
constexpr std::int64_t kPixels = 64;

struct Palette {
    alignas(64) std::uint8_t planes[4][256]; // red, green, blue, alpha

    explicit Palette(const std::uint8_t* colors) {
        for (int i = 0; colors != nullptr && i < 256; ++i) {
            for (int k = 0; k < 4; ++k) {
                planes[k][i] = colors[4 * i + k];
            }
        }
    }

    __m512i look_up(int plane, __m512i index) const {
        const std::uint8_t* table = planes[plane];
        const __m512i low = _mm512_permutex2var_epi8(_mm512_load_si512(table), index,
                                                     _mm512_load_si512(table + 64));
        const __m512i high = _mm512_permutex2var_epi8(_mm512_load_si512(table + 128), index,
                                                      _mm512_load_si512(table + 192));
        return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high);
    }
};

// Byte positions that take 64 pixels of three bytes apart, and put them together again.
struct Interleaving {
    alignas(64) std::uint8_t apart[3][2][64];    // per channel: from registers 0 and 1, then from 2
    alignas(64) std::uint8_t together[3][2][64]; // per register: from red and green, then from blue
    std::uint64_t apart_last[3] = {}, together_last[3] = {};

    constexpr Interleaving() : apart(), together() {
        for (int k = 0; k < 3; ++k) {
            for (int i = 0; i < 64; ++i) {
                const int byte = 3 * i + k; // of the pixels
                apart[k][0][i] = static_cast<std::uint8_t>(byte % 128);
                apart[k][1][i] = static_cast<std::uint8_t>(byte % 64);
                apart_last[k] |= std::uint64_t{byte >= 128} << i;
                const int pixel = (64 * k + i) / 3, channel = (64 * k + i) % 3;
                together[k][0][i] = static_cast<std::uint8_t>(channel == 1 ? 64 + pixel : pixel);
                together[k][1][i] = static_cast<std::uint8_t>(pixel);
                together_last[k] |= std::uint64_t{channel == 2} << i;
            }
        }
    }
};

constexpr Interleaving kInterleaving;

inline __m512i merge(const std::uint8_t (&order)[2][64], std::uint64_t last, __m512i a, __m512i b,
                     __m512i c) {
    const __m512i two = _mm512_permutex2var_epi8(a, _mm512_load_si512(order[0]), b);
    return _mm512_mask_permutexvar_epi8(two, last, _mm512_load_si512(order[1]), c);
}

// The bytes of register k of three that hold `count` pixels.
inline __mmask64 bytes_of(std::int64_t count, int k) {
    const std::int64_t bytes = 3 * count - 64 * k;
    return bytes >= 64 ? ~__mmask64{0} : bytes <= 0 ? 0 : (__mmask64{1} << bytes) - 1;
}

inline void blend_pixels(const std::uint8_t* photo, const Palette& palette, __m512i index,
                         std::int64_t count, std::uint8_t* out) {
    const __m512i zero = _mm512_setzero_si512();
    const __m512i alpha = palette.look_up(3, index);
    const __m512i blend_low = to_blend(_mm512_unpacklo_epi8(alpha, zero));
    const __m512i blend_high = to_blend(_mm512_unpackhi_epi8(alpha, zero));
    __m512i packed[3], planes[3];
    for (int k = 0; k < 3; ++k) {
        packed[k] = _mm512_maskz_loadu_epi8(bytes_of(count, k), photo + 64 * k);
    }
    for (int k = 0; k < 3; ++k) {
        const __m512i pixels = merge(kInterleaving.apart[k], kInterleaving.apart_last[k], packed[0],
                                     packed[1], packed[2]);
        const __m512i color = palette.look_up(k, index);
        planes[k] =
            _mm512_packus_epi16(blend_shorts(_mm512_unpacklo_epi8(pixels, zero),
                                             _mm512_unpacklo_epi8(color, zero), blend_low),
                                blend_shorts(_mm512_unpackhi_epi8(pixels, zero),
                                             _mm512_unpackhi_epi8(color, zero), blend_high));
    }
    for (int k = 0; k < 3; ++k) {
        const __m512i bytes = merge(kInterleaving.together[k], kInterleaving.together_last[k],
                                    planes[0], planes[1], planes[2]);
        _mm512_mask_storeu_epi8(out + 64 * k, bytes_of(count, k), bytes);
    }
}
#else
constexpr std::int64_t kPixels = kLanes;

struct Palette {
    const std::uint8_t* colors; // [256, 4]

    explicit Palette(const std::uint8_t* colors) : colors(colors) {}
};

#if defined(__AVX512F__)
inline void blend_pixels(const std::uint8_t* photo, const Palette& palette, IntVec index,
                         std::uint8_t* out) {
    const __m512i color =
        _mm512_i32gather_epi32(reinterpret_cast<__m512i>(index), palette.colors, 4);
    const __m512i alpha_of_pixel =
        _mm512_set4_epi32(0x0f0f0f0f, 0x0b0b0b0b, 0x07070707, 0x03030303);
    const __m512i alpha = _mm512_shuffle_epi8(color, alpha_of_pixel);
    // 48 bytes, 12 to each 128-bit lane, then 3 bytes to each 32-bit element.
    const __m512i spread = _mm512_setr_epi32(0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 8, 9, 10, 11, 11);
    const __m512i bytes = _mm512_maskz_loadu_epi32(0x0fff, photo);
    const char none = -128;
    const __m512i to_pixels = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, 1, 2, none, 3, 4, 5, none, 6, 7, 8, none, 9, 10, 11, none));
    const __m512i pixels = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(spread, bytes), to_pixels);

    const __m512i zero = _mm512_setzero_si512();
    const __m512i first =
        blend_shorts(_mm512_unpacklo_epi8(pixels, zero), _mm512_unpacklo_epi8(color, zero),
                     to_blend(_mm512_unpacklo_epi8(alpha, zero)));
    const __m512i second =
        blend_shorts(_mm512_unpackhi_epi8(pixels, zero), _mm512_unpackhi_epi8(color, zero),
                     to_blend(_mm512_unpackhi_epi8(alpha, zero)));
    const __m512i blended = _mm512_packus_epi16(first, second);

    const __m512i to_bytes = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, none, none, none, none));
    const __m512i gathered =
        _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15);
    const __m512i packed =
        _mm512_permutexvar_epi32(gathered, _mm512_shuffle_epi8(blended, to_bytes));
    _mm512_mask_storeu_epi32(out, 0x0fff, packed);
}
#elif defined(__AVX2__)
// 12 bytes, without touching the four behind them.
inline __m128i load_12(const std::uint8_t* p) {
    std::int32_t last;
    std::memcpy(&last, p + 8, 4);
    return _mm_insert_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)), last, 2);
}

inline void store_12(std::uint8_t* p, __m128i v) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), v);
    const std::int32_t last = _mm_extract_epi32(v, 2);
    std::memcpy(p + 8, &last, 4);
}

inline void blend_pixels(const std::uint8_t* photo, const Palette& palette, IntVec index,
                         std::uint8_t* out) {
    const __m256i color = _mm256_i32gather_epi32(reinterpret_cast<const int*>(palette.colors),
                                                 reinterpret_cast<__m256i>(index), 4);
    const __m256i alpha = _mm256_shuffle_epi8(
        color, _mm256_set_epi32(0x0f0f0f0f, 0x0b0b0b0b, 0x07070707, 0x03030303, 0x0f0f0f0f,
                                0x0b0b0b0b, 0x07070707, 0x03030303));
    const char none = -128;
    const __m256i to_pixels = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 2, none, 3, 4, 5, none, 6, 7, 8, none, 9, 10, 11, none));
    const __m256i pixels =
        _mm256_shuffle_epi8(_mm256_set_m128i(load_12(photo + 12), load_12(photo)), to_pixels);

    const __m256i zero = _mm256_setzero_si256();
    const __m256i first =
        blend_shorts(_mm256_unpacklo_epi8(pixels, zero), _mm256_unpacklo_epi8(color, zero),
                     to_blend(_mm256_unpacklo_epi8(alpha, zero)));
    const __m256i second =
        blend_shorts(_mm256_unpackhi_epi8(pixels, zero), _mm256_unpackhi_epi8(color, zero),
                     to_blend(_mm256_unpackhi_epi8(alpha, zero)));
    const __m256i packed =
        _mm256_shuffle_epi8(_mm256_packus_epi16(first, second),
                            _mm256_broadcastsi128_si256(_mm_setr_epi8(
                                0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, none, none, none, none)));
    store_12(out, _mm256_castsi256_si128(packed));
    store_12(out + 12, _mm256_extracti128_si256(packed, 1));
}
#else
inline void blend_pixels(const std::uint8_t* photo, const Palette& palette, IntVec index,
                         std::uint8_t* out) {
    for (int i = 0; i < kLanes; ++i) {
        const std::uint8_t* color = palette.colors + 4 * index[i];
        const int b = color[3] + (color[3] >> 7);
        for (int k = 0; k < 3; ++k) {
            const int mixed = photo[3 * i + k] * (256 - b) + color[k] * b + 128;
            out[3 * i + k] = static_cast<std::uint8_t>(mixed >> 8);
        }
    }
}
#endif
#endif // __AVX512VBMI__

inline void write_overlay_row(const RenderPiece& piece, const Palette& palette, const float* low,
                              const float* high, Vec weight, std::int64_t row) {
    const std::uint8_t* photo = piece.photo + row * piece.resize.width * 3;
    std::uint8_t* out = static_cast<std::uint8_t*>(piece.out) + row * piece.resize.width * 3;
    const auto value_at = [&](std::int64_t x) {
        return to_int(blend_rows(low + x, high + x, weight));
    };
    const auto index_at = [&](std::int64_t x) {
#if defined(__AVX512VBMI__)
        return pack_bytes(value_at(x), value_at(x + kLanes), value_at(x + 2 * kLanes),
                          value_at(x + 3 * kLanes));
#else
        const IntVec index = value_at(x);
        return index > 0 ? index : IntVec{};
#endif
    };
#if defined(__AVX512VBMI__)
    for (std::int64_t x = 0; x < piece.resize.width; x += kPixels) {
        const std::int64_t count =
            piece.resize.width - x < kPixels ? piece.resize.width - x : kPixels;
        blend_pixels(photo + 3 * x, palette, index_at(x), count, out + 3 * x);
    }
#else
    std::int64_t x = 0;
    for (; x + kPixels <= piece.resize.width; x += kPixels) {
        blend_pixels(photo + 3 * x, palette, index_at(x), out + 3 * x);
    }
    if (x < piece.resize.width) {
        const std::int64_t bytes = 3 * (piece.resize.width - x);
        std::uint8_t pixels[3 * kPixels] = {}, blended[3 * kPixels];
        for (std::int64_t i = 0; i < bytes; ++i) {
            pixels[i] = photo[3 * x + i];
        }
        blend_pixels(pixels, palette, index_at(x), blended);
        for (std::int64_t i = 0; i < bytes; ++i) {
            out[3 * x + i] = blended[i];
        }
    }
#endif
}
