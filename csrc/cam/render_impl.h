// Rendering of low-resolution maps: bodies, compiled once per instruction set.
// Included inside namespace pyxai::cpu::PYXAI_ISA { namespace { ... } }.

inline Vec smaller(Vec a, Vec b) {
    return a < b ? a : b;
}

inline Vec larger(Vec a, Vec b) {
    return a > b ? a : b;
}

void scale_map(const float* map, std::int64_t size, bool relu, bool minmax, float* offset,
               float* factor) {
    Vec lows = broadcast(map[0]), highs = lows;
    // x - x is 0 for finite x and NaN otherwise, so the sum tells whether all are finite.
    Vec probes{};
    std::int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) {
        const Vec u = load(map + i);
        lows = smaller(u, lows);
        highs = larger(u, highs);
        probes += u - u;
    }
    float low = map[0], high = map[0], probe = sum(probes);
    for (int lane = 0; lane < kLanes; ++lane) {
        low = lows[lane] < low ? lows[lane] : low;
        high = highs[lane] > high ? highs[lane] : high;
    }
    for (; i < size; ++i) {
        low = map[i] < low ? map[i] : low;
        high = map[i] > high ? map[i] : high;
        probe += map[i] - map[i];
    }
    if (relu) {
        low = low > 0.0f ? low : 0.0f;
        high = high > 0.0f ? high : 0.0f;
    }
    *offset = minmax ? low : 0.0f;
    // A range too small to divide by is none.
    *factor = !minmax ? 1.0f : high - low >= __FLT_MIN__ ? 1.0f / (high - low) : 0.0f;
    if (probe != 0.0f) {
        *factor = probe;
    }
}

// One source row, scaled and stretched to the full width. For bytes the values are scaled to
// [0, 255] and a half is added: blending two rows keeps it, so that truncation rounds.
inline void stretch_row(const RenderPiece& piece, std::int64_t source_row, float* out) {
    const float* source = piece.map + source_row * piece.map_width;
    float* scaled = piece.scratch;
    const bool bytes =
        piece.format == PixelFormat::kByte || piece.format == PixelFormat::kOverlay;
    const float floor = piece.relu ? 0.0f : -__builtin_inff();
    const float factor = bytes ? piece.factor * 255.0f : piece.factor;
    const float half = bytes ? 0.5f : 0.0f;
    for (std::int64_t x = 0; x < piece.map_width; ++x) {
        const float u = source[x] < floor ? floor : source[x];
        scaled[x] = (u - piece.offset) * factor + half;
    }
    // The taps and rows are padded to whole vectors, so there is no rest to care for.
    const bool in_registers = piece.map_width <= kRegisterTable;
    for (std::int64_t x = 0; x < piece.width; x += kLanes) {
        const IntVec low_index = load(piece.low + x), high_index = load(piece.high + x);
        const Vec low = in_registers ? permute(scaled, low_index) : gather(scaled, low_index);
        const Vec high = in_registers ? permute(scaled, high_index) : gather(scaled, high_index);
        store(out + x, low + load(piece.weight + x) * (high - low));
    }
}

inline Vec blend_rows(const float* low, const float* high, Vec weight) {
    const Vec a = load(low);
    return a + weight * (load(high) - a);
}

inline void write_float_row(const float* low, const float* high, Vec weight, std::int64_t width,
                            float* out) {
    std::int64_t x = 0;
    for (; x + 2 * kLanes <= width; x += 2 * kLanes) {
        store(out + x, blend_rows(low + x, high + x, weight));
        store(out + x + kLanes, blend_rows(low + x + kLanes, high + x + kLanes, weight));
    }
    for (; x + kLanes <= width; x += kLanes) {
        store(out + x, blend_rows(low + x, high + x, weight));
    }
    if (x < width) {
        store_part(out + x, blend_rows(low + x, high + x, weight), width - x);
    }
}

inline void stream_float_row(const float* low, const float* high, Vec weight, std::int64_t width,
                             float* out) {
    const std::int64_t misaligned =
        static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(out) % sizeof(Vec) / 4);
    std::int64_t x = misaligned == 0 ? 0 : kLanes - misaligned;
    x = x < width ? x : width;
    if (x > 0) {
        store_part(out, blend_rows(low, high, weight), x);
    }
    for (; x + kLanes <= width; x += kLanes) {
        stream(out + x, blend_rows(low + x, high + x, weight));
    }
    if (x < width) {
        store_part(out + x, blend_rows(low + x, high + x, weight), width - x);
    }
}

// Truncation makes a NaN the most negative integer, which is clamped to 0 later.
inline IntVec to_int(Vec value) {
    return __builtin_convertvector(at_most(broadcast(255.5f), value), IntVec);
}

inline void write_byte_row(const float* low, const float* high, Vec weight, std::int64_t width,
                           std::uint8_t* out) {
    const auto indices = [&](std::int64_t x) {
        return to_int(blend_rows(low + x, high + x, weight));
    };
    std::int64_t x = 0;
    for (; x + 4 * kLanes <= width; x += 4 * kLanes) {
        store_bytes(out + x, indices(x), indices(x + kLanes), indices(x + 2 * kLanes),
                    indices(x + 3 * kLanes));
    }
    for (; x < width; x += kLanes) {
        std::uint8_t bytes[4 * kLanes];
        store_bytes(bytes, indices(x), IntVec{}, IntVec{}, IntVec{});
        const std::int64_t rest = width - x < kLanes ? width - x : kLanes;
        for (std::int64_t i = 0; i < rest; ++i) {
            out[x + i] = bytes[i];
        }
    }
}

// (photo * (256 - b) + color * b + 128) >> 8 for kLanes pixels of 3 bytes; the sum modulo 2^16 is
// exact because its true value lies in [128, 65408].
#if defined(__AVX512F__)
inline void blend_pixels(const std::uint8_t* photo, const std::uint8_t* colors, IntVec index,
                         std::uint8_t* out) {
    const __m512i color = _mm512_i32gather_epi32(reinterpret_cast<__m512i>(index), colors, 4);
    const __m512i alpha_of_pixel = _mm512_set4_epi32(0x0f0f0f0f, 0x0b0b0b0b, 0x07070707, 0x03030303);
    const __m512i alpha = _mm512_shuffle_epi8(color, alpha_of_pixel);
    // 48 bytes, 12 to each 128-bit lane, then 3 bytes to each 32-bit element.
    const __m512i spread = _mm512_setr_epi32(0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 8, 9, 10, 11, 11);
    const __m512i bytes = _mm512_maskz_loadu_epi32(0x0fff, photo);
    const char none = -128;
    const __m512i to_pixels = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, 1, 2, none, 3, 4, 5, none, 6, 7, 8, none, 9, 10, 11, none));
    const __m512i pixels = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(spread, bytes), to_pixels);

    const __m512i zero = _mm512_setzero_si512();
    const __m512i half = _mm512_set1_epi16(128);
    const auto blend = [half](__m512i p, __m512i c, __m512i a) {
        const __m512i b = _mm512_add_epi16(a, _mm512_srli_epi16(a, 7));
        const __m512i difference = _mm512_mullo_epi16(_mm512_sub_epi16(c, p), b);
        const __m512i total = _mm512_add_epi16(_mm512_slli_epi16(p, 8), difference);
        return _mm512_srli_epi16(_mm512_add_epi16(total, half), 8);
    };
    const __m512i first = blend(_mm512_unpacklo_epi8(pixels, zero), _mm512_unpacklo_epi8(color, zero),
                                _mm512_unpacklo_epi8(alpha, zero));
    const __m512i second = blend(_mm512_unpackhi_epi8(pixels, zero),
                                 _mm512_unpackhi_epi8(color, zero),
                                 _mm512_unpackhi_epi8(alpha, zero));
    const __m512i blended = _mm512_packus_epi16(first, second);

    const __m512i to_bytes = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, none, none, none, none));
    const __m512i gathered = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15);
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

inline void blend_pixels(const std::uint8_t* photo, const std::uint8_t* colors, IntVec index,
                         std::uint8_t* out) {
    const __m256i color = _mm256_i32gather_epi32(reinterpret_cast<const int*>(colors),
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
    const __m256i half = _mm256_set1_epi16(128);
    const auto blend = [half](__m256i p, __m256i c, __m256i a) {
        const __m256i b = _mm256_add_epi16(a, _mm256_srli_epi16(a, 7));
        const __m256i difference = _mm256_mullo_epi16(_mm256_sub_epi16(c, p), b);
        const __m256i total = _mm256_add_epi16(_mm256_slli_epi16(p, 8), difference);
        return _mm256_srli_epi16(_mm256_add_epi16(total, half), 8);
    };
    const __m256i first = blend(_mm256_unpacklo_epi8(pixels, zero), _mm256_unpacklo_epi8(color, zero),
                                _mm256_unpacklo_epi8(alpha, zero));
    const __m256i second = blend(_mm256_unpackhi_epi8(pixels, zero),
                                 _mm256_unpackhi_epi8(color, zero),
                                 _mm256_unpackhi_epi8(alpha, zero));
    const __m256i packed = _mm256_shuffle_epi8(
        _mm256_packus_epi16(first, second),
        _mm256_broadcastsi128_si256(
            _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, none, none, none, none)));
    store_12(out, _mm256_castsi256_si128(packed));
    store_12(out + 12, _mm256_extracti128_si256(packed, 1));
}
#else
inline void blend_pixels(const std::uint8_t* photo, const std::uint8_t* colors, IntVec index,
                         std::uint8_t* out) {
    for (int i = 0; i < kLanes; ++i) {
        const std::uint8_t* color = colors + 4 * index[i];
        const int b = color[3] + (color[3] >> 7);
        for (int k = 0; k < 3; ++k) {
            const int mixed = photo[3 * i + k] * (256 - b) + color[k] * b + 128;
            out[3 * i + k] = static_cast<std::uint8_t>(mixed >> 8);
        }
    }
}
#endif

inline void write_overlay_row(const RenderPiece& piece, const float* low, const float* high,
                              Vec weight, std::int64_t row) {
    const std::uint8_t* photo = piece.photo + row * piece.width * 3;
    std::uint8_t* out = static_cast<std::uint8_t*>(piece.out) + row * piece.width * 3;
    const auto index_of = [&](std::int64_t x) {
        const IntVec index = to_int(blend_rows(low + x, high + x, weight));
        return index > 0 ? index : IntVec{};
    };
    std::int64_t x = 0;
    for (; x + kLanes <= piece.width; x += kLanes) {
        const IntVec index = index_of(x);
        blend_pixels(photo + 3 * x, piece.colors, index, out + 3 * x);
    }
    if (x < piece.width) {
        std::uint8_t pixels[3 * kLanes] = {};
        const std::int64_t bytes = 3 * (piece.width - x);
        for (std::int64_t i = 0; i < bytes; ++i) {
            pixels[i] = photo[3 * x + i];
        }
        const IntVec index = index_of(x);
        std::uint8_t blended[3 * kLanes];
        blend_pixels(pixels, piece.colors, index, blended);
        for (std::int64_t i = 0; i < bytes; ++i) {
            out[3 * x + i] = blended[i];
        }
    }
}

void render_rows(const RenderPiece& piece) {
    float* rows[2] = {piece.scratch + padded(piece.map_width),
                      piece.scratch + padded(piece.map_width) + padded(piece.width)};
    std::int32_t held[2] = {-1, -1}; // which source row each buffer holds
    const float scale =
        static_cast<float>(piece.map_height) / static_cast<float>(piece.height);
    for (std::int64_t y = piece.row_begin; y < piece.row_end; ++y) {
        const Tap tap = bilinear_tap(y, piece.map_height, scale);
        if (held[0] != tap.low) {
            if (held[1] == tap.low) {
                float* const row = rows[0];
                rows[0] = rows[1];
                rows[1] = row;
                held[1] = held[0];
            } else {
                stretch_row(piece, tap.low, rows[0]);
            }
            held[0] = tap.low;
        }
        const float* high = rows[0];
        if (tap.high != tap.low) {
            if (held[1] != tap.high) {
                stretch_row(piece, tap.high, rows[1]);
                held[1] = tap.high;
            }
            high = rows[1];
        }
        const Vec weight = broadcast(tap.weight);
        float* out = static_cast<float*>(piece.out) + y * piece.width;
        switch (piece.format) {
        case PixelFormat::kFloat:
            write_float_row(rows[0], high, weight, piece.width, out);
            break;
        case PixelFormat::kFloatStreamed:
            stream_float_row(rows[0], high, weight, piece.width, out);
            break;
        case PixelFormat::kByte:
            write_byte_row(rows[0], high, weight, piece.width,
                           static_cast<std::uint8_t*>(piece.out) + y * piece.width);
            break;
        case PixelFormat::kOverlay:
            write_overlay_row(piece, rows[0], high, weight, y);
            break;
        }
    }
    if (piece.format == PixelFormat::kFloatStreamed) {
        stream_fence();
    }
}
