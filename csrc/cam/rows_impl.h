// Rows of resized maps as floats and bytes: bodies, compiled once per instruction set.
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
    const float* source = piece.map + source_row * piece.resize.source_width;
    float* scaled = piece.scratch;
    const bool bytes = piece.format == PixelFormat::kByte || piece.format == PixelFormat::kOverlay;
    const float floor = piece.relu ? 0.0f : -__builtin_inff();
    const float factor = bytes ? piece.factor * 255.0f : piece.factor;
    const float half = bytes ? 0.5f : 0.0f;
    for (std::int64_t x = 0; x < piece.resize.source_width; ++x) {
        const float u = source[x] < floor ? floor : source[x];
        scaled[x] = (u - piece.offset) * factor + half;
    }
    stretch(piece.resize, scaled, out);
}

inline Vec blend_rows(const float* low, const float* high, Vec weight) {
    const Vec a = load(low);
    return a + weight * (load(high) - a);
}

// The rows of a run are read once for several vectors, then only written.
constexpr int kRunVecs = 4;

// Calls write(first element, row, vectors...) for each block of kRunVecs vectors of each row.
template <class Write> inline void for_each_block(const RowRun& run, const Write& write) {
    for (std::int64_t x = 0; x < run.width; x += kRunVecs * kLanes) {
        Vec low[kRunVecs], change[kRunVecs];
        for (int v = 0; v < kRunVecs; ++v) {
            low[v] = load(run.low + x + v * kLanes);
            change[v] = load(run.high + x + v * kLanes) - low[v];
        }
        for (std::int64_t row = 0; row < run.rows; ++row) {
            const Vec weight = broadcast(run.weights[row]);
            Vec values[kRunVecs];
            for (int v = 0; v < kRunVecs; ++v) {
                values[v] = low[v] + weight * change[v];
            }
            write(x, row, values);
        }
    }
}

// Few rows at a time: written in blocks that jump between many, large pictures take twice as long.
template <int rows> inline void write_float_rows(const RowRun& run, std::int64_t row, float* out) {
    Vec weights[rows];
    for (int r = 0; r < rows; ++r) {
        weights[r] = broadcast(run.weights[row + r]);
    }
    for (std::int64_t x = 0; x < run.width; x += kLanes) {
        const Vec low = load(run.low + x), change = load(run.high + x) - low;
        const std::int64_t rest = run.width - x;
#pragma GCC unroll 4
        for (int r = 0; r < rows; ++r) {
            float* to = out + r * run.width + x;
            if (rest >= kLanes) {
                store(to, low + weights[r] * change);
            } else {
                store_part(to, low + weights[r] * change, rest);
            }
        }
    }
}

inline void write_floats(const RowRun& run, float* out) {
    std::int64_t row = 0;
    for (; row + 4 <= run.rows; row += 4) {
        write_float_rows<4>(run, row, out + row * run.width);
    }
    for (; row < run.rows; ++row) {
        write_float_rows<1>(run, row, out + row * run.width);
    }
}

// Writes past the cache, in whole aligned vectors also where the rows are not aligned: a cache line
// written in two ways would be read and evicted in between.
struct FloatStream {
    float* out;                // where the next value belongs
    float pending[2 * kLanes]; // the end of the last row, not yet written
    std::int64_t count;
};

inline void stream_row(FloatStream& to, const RowRun& run, std::int64_t row) {
    const Vec weight = broadcast(run.weights[row]);
    const auto values = [&](std::int64_t x) {
        return blend_rows(run.low + x, run.high + x, weight);
    };
    const std::int64_t offset =
        static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(to.out) % sizeof(Vec) / 4);
    std::int64_t x = 0;
    if (offset != 0) { // only before the first aligned address
        x = kLanes - offset < run.width ? kLanes - offset : run.width;
        store_part(to.out, values(0), x);
        to.out += x;
    } else if (to.count > 0) {
        store(to.pending + to.count, values(0));
        x = kLanes - to.count;
        if (x > run.width) {
            to.count += run.width;
            return;
        }
        stream(to.out, load(to.pending));
        to.out += kLanes;
    }
    for (; x + kLanes <= run.width; x += kLanes, to.out += kLanes) {
        stream(to.out, values(x));
    }
    to.count = run.width - x;
    store(to.pending, values(x));
}

inline void finish_stream(const FloatStream& to) {
    for (std::int64_t i = 0; i < to.count; ++i) {
        to.out[i] = to.pending[i];
    }
    stream_fence();
}

// Truncation makes a NaN the most negative integer, which is clamped to 0 later.
inline IntVec to_int(Vec value) {
    return __builtin_convertvector(at_most(broadcast(255.5f), value), IntVec);
}

inline void write_bytes(const RowRun& run, std::uint8_t* out) {
    for_each_block(run, [&](std::int64_t x, std::int64_t row, const Vec(&values)[kRunVecs]) {
        const IntVec a = to_int(values[0]), b = to_int(values[1]), c = to_int(values[2]),
                     d = to_int(values[3]);
        std::uint8_t* to = out + row * run.width + x;
        const std::int64_t rest = run.width - x;
        if (rest >= kRunVecs * kLanes) {
            store_bytes(to, a, b, c, d);
            return;
        }
        std::uint8_t bytes[kRunVecs * kLanes];
        store_bytes(bytes, a, b, c, d);
        std::memcpy(to, bytes, static_cast<std::size_t>(rest));
    });
}
