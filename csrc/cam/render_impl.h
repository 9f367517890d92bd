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
    const bool bytes = piece.format == PixelFormat::kByte || piece.format == PixelFormat::kOverlay;
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

// Collects rows so that whole aligned vectors can be written past the cache, also where the rows
// themselves are not aligned: a cache line written in two ways would be read and evicted in
// between.
struct FloatStream {
    float* out;     // where the first pending value belongs
    float* pending; // padded(width) + kLanes values, aligned
    std::int64_t count;
};

inline void stream_float_row(FloatStream& to, const float* low, const float* high, Vec weight,
                             std::int64_t width) {
    for (std::int64_t x = 0; x < width; x += kLanes) {
        store(to.pending + to.count + x, blend_rows(low + x, high + x, weight));
    }
    const float* source = to.pending;
    std::int64_t count = to.count + width;
    while (count > 0 && reinterpret_cast<std::uintptr_t>(to.out) % sizeof(Vec) != 0) {
        *to.out++ = *source++; // at most once, before the first aligned address
        --count;
    }
    for (; count >= kLanes; count -= kLanes, source += kLanes, to.out += kLanes) {
        stream(to.out, load(source));
    }
    for (std::int64_t i = 0; i < count; ++i) {
        to.pending[i] = source[i];
    }
    to.count = count;
}

inline void finish_stream(FloatStream& to) {
    for (std::int64_t i = 0; i < to.count; ++i) {
        to.out[i] = to.pending[i];
    }
    stream_fence();
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

#include "overlay_impl.h"

void render_rows(const RenderPiece& piece) {
    float* rows[2] = {piece.scratch + padded(piece.map_width),
                      piece.scratch + padded(piece.map_width) + padded(piece.width)};
    std::int32_t held[2] = {-1, -1}; // which source row each buffer holds
    FloatStream stream_to = {static_cast<float*>(piece.out) + piece.row_begin * piece.width,
                             rows[1] + padded(piece.width), 0};
    const Palette palette(piece.colors);
    const float scale = static_cast<float>(piece.map_height) / static_cast<float>(piece.height);
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
            stream_float_row(stream_to, rows[0], high, weight, piece.width);
            break;
        case PixelFormat::kByte:
            write_byte_row(rows[0], high, weight, piece.width,
                           static_cast<std::uint8_t*>(piece.out) + y * piece.width);
            break;
        case PixelFormat::kOverlay:
            write_overlay_row(piece, palette, rows[0], high, weight, y);
            break;
        }
    }
    if (piece.format == PixelFormat::kFloatStreamed) {
        finish_stream(stream_to);
    }
}
