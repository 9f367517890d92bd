// Projection of features on class weights: bodies, compiled once per instruction set.
// Included inside namespace pyxai::cpu::PYXAI_ISA { namespace { ... } }.

// Targets that share one tile of registers, and vectors of positions in it.
#if defined(__AVX512F__)
constexpr int kTileRows = 6, kTileVecs = 4;
#else
constexpr int kTileRows = 6, kTileVecs = 2;
#endif
constexpr std::int64_t kPanelColumns = kTileVecs * kLanes;

// ---- few targets: one pass over the features, sums kept in the output rows ----

constexpr int kChannelBlock = 8;

// row[p] (+)= sum over `count` channels of weights[c] * features[c * stride + p]
template <DType type, int count>
inline void add_channels(const typename Element<type>::Storage* features, std::int64_t stride,
                         const float* weights, std::int64_t positions, bool first, float* row) {
    typedef Element<type> E;
    Vec w[count];
    for (int c = 0; c < count; ++c) {
        w[c] = broadcast(weights[c]);
    }
    std::int64_t p = 0;
    for (; p + kLanes <= positions; p += kLanes) {
        Vec even = first ? Vec{} : load(row + p);
        Vec odd{};
#pragma GCC unroll 8
        for (int c = 0; c < count; ++c) {
            (c % 2 ? odd : even) += w[c] * E::read(features + c * stride + p);
        }
        store(row + p, even + odd);
    }
    if (p < positions) {
        const std::int64_t rest = positions - p;
        Vec even = first ? Vec{} : load_part(row + p, rest);
        Vec odd{};
#pragma GCC unroll 8
        for (int c = 0; c < count; ++c) {
            (c % 2 ? odd : even) += w[c] * E::read_part(features + c * stride + p, rest);
        }
        store_part(row + p, even + odd, rest);
    }
}

// Maps so small that the sums of one target fit registers (7 x 7 above all): they stay there.
constexpr int kSmallVecs = 64 / kLanes;

template <DType type, int vecs>
inline void project_small(const ProjectPiece& piece, std::int64_t target) {
    typedef Element<type> E;
    const typename E::Storage* features = static_cast<const typename E::Storage*>(piece.features);
    const float* weights = piece.weights + target * piece.channels;
    constexpr int whole = vecs - 1;
    const std::int64_t rest = piece.positions - whole * kLanes; // 1 to kLanes
    Vec sums[2][vecs] = {};
    const auto add = [&](std::int64_t c, Vec(&into)[vecs]) {
        const Vec w = broadcast(weights[c]);
        const typename E::Storage* plane = features + c * piece.feature_stride;
#pragma GCC unroll 16
        for (int v = 0; v < whole; ++v) {
            into[v] += w * E::read(plane + v * kLanes);
        }
        into[whole] += w * (rest == kLanes ? E::read(plane + whole * kLanes)
                                           : E::read_part(plane + whole * kLanes, rest));
    };
    std::int64_t c = 0;
    for (; c + 2 <= piece.channels; c += 2) {
        add(c, sums[0]);
        add(c + 1, sums[1]);
    }
    if (c < piece.channels) {
        add(c, sums[0]);
    }
    float* row = piece.maps + target * piece.map_stride;
    for (int v = 0; v < whole; ++v) {
        store(row + v * kLanes, sums[0][v] + sums[1][v]);
    }
    const Vec last = sums[0][whole] + sums[1][whole];
    if (rest == kLanes) {
        store(row + whole * kLanes, last);
    } else {
        store_part(row + whole * kLanes, last, rest);
    }
}

// Calls project_small for the number of vectors that the positions need.
template <DType type, int vecs>
inline void project_small_of(const ProjectPiece& piece, std::int64_t target) {
    if constexpr (vecs > 1) {
        if (piece.positions <= (vecs - 1) * kLanes) {
            return project_small_of<type, vecs - 1>(piece, target);
        }
    }
    project_small<type, vecs>(piece, target);
}

template <DType type> void project_planes_as(const ProjectPiece& piece) {
    typedef typename Element<type>::Storage Storage;
    if (kSmallVecs <= 8 && piece.positions <= kSmallVecs * kLanes) {
        for (std::int64_t t = 0; t < piece.targets; ++t) {
            project_small_of<type, kSmallVecs <= 8 ? kSmallVecs : 1>(piece, t);
        }
        return;
    }
    const Storage* features = static_cast<const Storage*>(piece.features);
    std::int64_t c = 0;
    // Targets inside, channels outside: a block of channels is read from memory once.
    for (; c + kChannelBlock <= piece.channels; c += kChannelBlock) {
        for (std::int64_t t = 0; t < piece.targets; ++t) {
            add_channels<type, kChannelBlock>(
                features + c * piece.feature_stride, piece.feature_stride,
                piece.weights + t * piece.channels + c, piece.positions, c == 0,
                piece.maps + t * piece.map_stride);
        }
    }
    for (; c < piece.channels; ++c) {
        for (std::int64_t t = 0; t < piece.targets; ++t) {
            add_channels<type, 1>(features + c * piece.feature_stride, piece.feature_stride,
                                  piece.weights + t * piece.channels + c, piece.positions, c == 0,
                                  piece.maps + t * piece.map_stride);
        }
    }
}

template <DType type>
inline float dot(const typename Element<type>::Storage* a, const float* b, std::int64_t n) {
    typedef Element<type> E;
    Vec sums[4] = {};
    std::int64_t i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) {
            sums[k] += E::read(a + i + k * kLanes) * load(b + i + k * kLanes);
        }
    }
    for (; i + kLanes <= n; i += kLanes) {
        sums[0] += E::read(a + i) * load(b + i);
    }
    if (i < n) {
        sums[1] += E::read_part(a + i, n - i) * load_part(b + i, n - i);
    }
    return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template <DType type> void project_channels_last_as(const ProjectPiece& piece) {
    typedef typename Element<type>::Storage Storage;
    const Storage* features = static_cast<const Storage*>(piece.features);
    for (std::int64_t p = 0; p < piece.positions; ++p) {
        for (std::int64_t t = 0; t < piece.targets; ++t) {
            piece.maps[t * piece.map_stride + p] =
                dot<type>(features + p * piece.feature_stride, piece.weights + t * piece.channels,
                          piece.channels);
        }
    }
}

// ---- many targets: a packed panel of positions, multiplied tile by tile ----

template <DType type> void pack_planes_as(const ProjectPiece& piece, float* panel) {
    typedef Element<type> E;
    typedef typename E::Storage Storage;
    const Storage* features = static_cast<const Storage*>(piece.features);
    for (std::int64_t c = 0; c < piece.channels; ++c) {
        const Storage* plane = features + c * piece.feature_stride;
        float* row = panel + c * kPanelColumns;
        for (std::int64_t p = 0; p < kPanelColumns; p += kLanes) {
            const std::int64_t rest = piece.positions - p;
            store(row + p, rest >= kLanes ? E::read(plane + p)
                           : rest > 0     ? E::read_part(plane + p, rest)
                                          : Vec{});
        }
    }
}

template <DType type> void pack_channels_last_as(const ProjectPiece& piece, float* panel) {
    typedef Element<type> E;
    typedef typename E::Storage Storage;
    const Storage* features = static_cast<const Storage*>(piece.features);
    for (std::int64_t c = 0; c < piece.channels; c += kLanes) {
        const std::int64_t channels = piece.channels - c < kLanes ? piece.channels - c : kLanes;
        for (std::int64_t p = 0; p < kPanelColumns; ++p) {
            Vec v{};
            if (p < piece.positions) {
                const Storage* source = features + p * piece.feature_stride + c;
                v = channels == kLanes ? E::read(source) : E::read_part(source, channels);
            }
            float lanes[kLanes];
            store(lanes, v);
            for (std::int64_t i = 0; i < channels; ++i) {
                panel[(c + i) * kPanelColumns + p] = lanes[i];
            }
        }
    }
}

template <int rows, int vecs>
inline void multiply_tile(const ProjectPiece& piece, const float* panel, std::int64_t target) {
    const float* weights = piece.weights + target * piece.channels;
    Vec sums[rows][vecs] = {};
    for (std::int64_t c = 0; c < piece.channels; ++c) {
        Vec columns[vecs];
#pragma GCC unroll 4
        for (int v = 0; v < vecs; ++v) {
            columns[v] = load(panel + c * kPanelColumns + v * kLanes);
        }
#pragma GCC unroll 6
        for (int r = 0; r < rows; ++r) {
            const Vec w = broadcast(weights[r * piece.channels + c]);
#pragma GCC unroll 4
            for (int v = 0; v < vecs; ++v) {
                sums[r][v] += w * columns[v];
            }
        }
    }
    for (int r = 0; r < rows; ++r) {
        float* row = piece.maps + (target + r) * piece.map_stride;
        for (int v = 0; v < vecs; ++v) {
            const std::int64_t rest = piece.positions - v * kLanes;
            if (rest >= kLanes) {
                store(row + v * kLanes, sums[r][v]);
            } else if (rest > 0) {
                store_part(row + v * kLanes, sums[r][v], rest);
            }
        }
    }
}

template <int vecs> void multiply_rows(const ProjectPiece& piece, const float* panel) {
    std::int64_t target = 0;
    for (; target + kTileRows <= piece.targets; target += kTileRows) {
        multiply_tile<kTileRows, vecs>(piece, panel, target);
    }
    for (; target + 2 <= piece.targets; target += 2) {
        multiply_tile<2, vecs>(piece, panel, target);
    }
    if (target < piece.targets) {
        multiply_tile<1, vecs>(piece, panel, target);
    }
}

void multiply_panel(const ProjectPiece& piece, const float* panel) {
    switch ((piece.positions + kLanes - 1) / kLanes) {
    case 1:
        return multiply_rows<1>(piece, panel);
    case 2:
        return multiply_rows<2>(piece, panel);
#if defined(__AVX512F__)
    case 3:
        return multiply_rows<3>(piece, panel);
    default:
        return multiply_rows<4>(piece, panel);
#endif
    }
}

// ---- the storage type, once per piece ----

#define PYXAI_BY_DTYPE(function, piece, ...)                                                       \
    switch ((piece).dtype) {                                                                       \
    case DType::kFloat32:                                                                          \
        return function<DType::kFloat32>(piece, ##__VA_ARGS__);                                    \
    case DType::kBFloat16:                                                                         \
        return function<DType::kBFloat16>(piece, ##__VA_ARGS__);                                   \
    case DType::kFloat16:                                                                          \
        return function<DType::kFloat16>(piece, ##__VA_ARGS__);                                    \
    }

void project_planes(const ProjectPiece& piece) {
    PYXAI_BY_DTYPE(project_planes_as, piece)
}

void project_channels_last(const ProjectPiece& piece) {
    PYXAI_BY_DTYPE(project_channels_last_as, piece)
}

void pack_planes(const ProjectPiece& piece, float* panel) {
    PYXAI_BY_DTYPE(pack_planes_as, piece, panel)
}

void pack_channels_last(const ProjectPiece& piece, float* panel) {
    PYXAI_BY_DTYPE(pack_channels_last_as, piece, panel)
}

#undef PYXAI_BY_DTYPE
