// Windows of a photo, normalised and resized: bodies, compiled once per instruction set.
// Included inside namespace pyxai::cpu::PYXAI_ISA { namespace { ... } }.

// ---- rows in the layout of the result ----

template <class Storage>
inline void take_every(const Storage* __restrict__ from, std::int64_t step, std::int64_t count,
                       Storage* __restrict__ to) {
    if (step == 3) { // a constant, of which compilers make shuffles
        for (std::int64_t x = 0; x < count; ++x) {
            to[x] = from[3 * x];
        }
    } else {
        for (std::int64_t x = 0; x < count; ++x) {
            to[x] = from[step * x];
        }
    }
}

template <class Storage>
inline void interleave(const WindowPhoto& photo, const Storage* row, std::int64_t channels,
                       std::int64_t columns, Storage* __restrict__ to) {
    const std::int64_t across = photo.column_stride, down = photo.channel_stride;
    if (channels == 3 && across == 1) {
        const Storage *first = row, *second = row + down, *third = row + 2 * down;
        for (std::int64_t x = 0; x < columns; ++x) {
            to[3 * x] = first[x];
            to[3 * x + 1] = second[x];
            to[3 * x + 2] = third[x];
        }
        return;
    }
    for (std::int64_t x = 0; x < columns; ++x) {
        for (std::int64_t c = 0; c < channels; ++c) {
            to[x * channels + c] = row[x * across + c * down];
        }
    }
}

// Row y of one plane, in place or gathered into the strip.
template <class Storage>
inline const Storage* plane_row(const CropPiece& piece, std::int64_t plane, std::int64_t y) {
    const WindowPhoto& photo = piece.photo;
    const Storage* row = static_cast<const Storage*>(photo.data) + y * photo.row_stride +
                         plane * photo.channel_stride;
    if (piece.in_place) {
        return row;
    }
    Storage* const strip = static_cast<Storage*>(piece.strip);
    if (piece.channels_last) {
        interleave(photo, row, piece.channels, piece.box_width, strip);
    } else {
        take_every(row, photo.column_stride, piece.box_width, strip);
    }
    return strip;
}

template <class Storage> inline void rearrange_as(const RearrangePiece& piece) {
    const WindowPhoto& photo = piece.photo;
    Storage* const out = static_cast<Storage*>(piece.out);
    for (std::int64_t y = piece.row_begin; y < piece.row_end; ++y) {
        const Storage* row = static_cast<const Storage*>(photo.data) + y * photo.row_stride;
        if (piece.channels_last) {
            interleave(photo, row, piece.channels, piece.columns,
                       out + y * piece.columns * piece.channels);
            continue;
        }
        for (std::int64_t c = 0; c < piece.channels; ++c) {
            take_every(row + c * photo.channel_stride, photo.column_stride, piece.columns,
                       out + (c * piece.rows + y) * piece.columns);
        }
    }
}

void rearrange_rows(const RearrangePiece& piece) {
    if (piece.photo.bytes) {
        rearrange_as<std::uint8_t>(piece);
    } else if (piece.photo.dtype == DType::kFloat32) {
        rearrange_as<float>(piece);
    } else {
        rearrange_as<std::uint16_t>(piece);
    }
}

// ---- windows ----

// `count` elements of a row, normalised. Source is how the photo's elements are read.
template <class Source, DType type, bool streamed>
inline void normalise_row(const typename Source::Storage* row, std::int64_t count,
                          const float* scale, const float* shift, std::int64_t period,
                          typename Element<type>::Storage* out) {
    std::int64_t x = 0, at = 0;
    for (; x + kLanes <= count; x += kLanes) {
        const Vec value = multiply_add(Source::read(row + x), load(scale + at), load(shift + at));
        write_some<streamed>(out + x, Element<type>::narrow(value), kLanes);
        at = at + kLanes == period ? 0 : at + kLanes;
    }
    if (x < count) {
        const Vec value =
            multiply_add(Source::read_part(row + x, count - x), load(scale + at), load(shift + at));
        write_some<streamed>(out + x, Element<type>::narrow(value), count - x);
    }
}

// A row of the box as wide as the result. What lies behind the row must be readable, see padded().
inline void stretch_columns(const WindowColumns& columns, const float* row, std::int64_t count,
                            float* out) {
    const auto each = [&](const auto& pick) {
        for (std::int64_t x = 0; x < count; x += kLanes) {
            const float* from = row + columns.base[x / kLanes];
            const Vec low = pick(from, load(columns.low + x));
            const Vec high = pick(from, load(columns.high + x));
            store(out + x, multiply_add(load(columns.weight + x), high - low, low));
        }
    };
    if (columns.span <= kLaneTable) {
        each([](const float* from, IntVec index) { return permute_lanes(from, index); });
    } else if (columns.span <= kRegisterTable) {
        each([](const float* from, IntVec index) { return permute(from, index); });
    } else {
        each([](const float* from, IntVec index) { return gather(from, index); });
    }
}

// One row of the result between two stretched ones.
template <DType type, bool streamed>
inline void mix_rows(const RowRun& run, std::int64_t row, typename Element<type>::Storage* out) {
    const Vec weight = broadcast(run.weights[row]);
    const auto columns = [&](std::int64_t x, std::int64_t count) {
        const Vec low = load(run.low + x);
        const Vec value = multiply_add(weight, load(run.high + x) - low, low);
        write_some<streamed>(out + x, Element<type>::narrow(value), count);
    };
    std::int64_t x = 0;
    for (; x + kLanes <= run.width; x += kLanes) {
        columns(x, kLanes);
    }
    if (x < run.width) {
        columns(x, run.width - x);
    }
}

template <class Source, DType type, bool streamed> void crop_as(const CropPiece& piece) {
    typedef typename Source::Storage From;
    typedef typename Element<type>::Storage To;
    const Resize& resize = piece.resize;
    const std::int64_t planes = piece.channels_last ? 1 : piece.channels;
    const std::int64_t elements = piece.box_width * (piece.channels_last ? piece.channels : 1);
    for (std::int64_t plane = 0; plane < planes; ++plane) {
        const float* const scale = piece.scale + plane * piece.period;
        const float* const shift = piece.shift + plane * piece.period;
        To* const out = static_cast<To*>(piece.out) + plane * resize.height * resize.width;
        if (!piece.resized) {
            for (std::int64_t y = piece.row_begin; y < piece.row_end; ++y) {
                normalise_row<Source, type, streamed>(plane_row<From>(piece, plane, y), elements,
                                                      scale, shift, piece.period,
                                                      out + y * resize.width);
            }
            continue;
        }
        float* const narrow = piece.scratch;
        const auto stretch_row = [&](std::int64_t y, float* to) {
            normalise_row<Source, DType::kFloat32, false>(
                plane_row<From>(piece, plane, y), elements, scale, shift, piece.period, narrow);
            stretch_columns(piece.columns, narrow, resize.width, to);
        };
        const auto mix_run = [&](const RowRun& run, std::int64_t first) {
            for (std::int64_t row = 0; row < run.rows; ++row) {
                mix_rows<type, streamed>(run, row, out + (first + row) * resize.width);
            }
        };
        for_each_run(resize, piece.row_begin, piece.row_end, narrow + padded(elements), stretch_row,
                     mix_run);
    }
    if (streamed) {
        stream_fence();
    }
}

template <class Source, DType type> inline void crop_to(const CropPiece& piece) {
    (piece.streamed ? crop_as<Source, type, true> : crop_as<Source, type, false>)(piece);
}

template <class Source> inline void crop_from(const CropPiece& piece) {
    switch (piece.dtype) {
    case DType::kFloat32:
        return crop_to<Source, DType::kFloat32>(piece);
    case DType::kBFloat16:
        return crop_to<Source, DType::kBFloat16>(piece);
    case DType::kFloat16:
        return crop_to<Source, DType::kFloat16>(piece);
    }
}

void crop_window(const CropPiece& piece) {
    if (piece.photo.bytes) {
        return crop_from<Bytes>(piece);
    }
    switch (piece.photo.dtype) {
    case DType::kFloat32:
        return crop_from<Element<DType::kFloat32>>(piece);
    case DType::kBFloat16:
        return crop_from<Element<DType::kBFloat16>>(piece);
    case DType::kFloat16:
        return crop_from<Element<DType::kFloat16>>(piece);
    }
}
