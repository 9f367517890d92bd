// Blending of photos and backgrounds under masks: bodies, compiled once per instruction set.
// Included inside namespace pyxai::cpu::PYXAI_ISA { namespace { ... } }.

// Some rows of a source in the layout of the result.
template <class Storage> struct SourceRows {
    const Storage* data;
    std::int64_t row_stride, plane_stride;
};

// Reads rows in place, or gathers them into a strip.
template <class Storage> class RowReader {
  public:
    RowReader(const BlendPiece& piece, const BlendRows& rows) : piece_(piece), rows_(rows) {}

    SourceRows<Storage> rows(std::int64_t y, std::int64_t count) {
        const BlendSource& from = rows_.source;
        const Storage* data = static_cast<const Storage*>(from.data) + y * from.row_stride;
        if (rows_.in_place) {
            return {data, from.row_stride, from.channel_stride};
        }
        Storage* const strip = static_cast<Storage*>(rows_.strip);
        const std::int64_t row_size = piece_.channels * piece_.columns;
        if (from.row_stride == 0) { // one row stands for all
            if (!gathered_) {
                gather(data, strip);
                gathered_ = true;
            }
            return {strip, 0, piece_.columns};
        }
        for (std::int64_t row = 0; row < count; ++row) {
            gather(data + row * from.row_stride, strip + row * row_size);
        }
        return {strip, row_size, piece_.columns};
    }

  private:
    void gather(const Storage* row, Storage* to) const {
        const std::int64_t channels = piece_.channels, columns = piece_.columns;
        const std::int64_t across = rows_.source.column_stride, down = rows_.source.channel_stride;
        if (piece_.channels_last) {
            for (std::int64_t x = 0; x < columns; ++x) {
                for (std::int64_t c = 0; c < channels; ++c) {
                    to[x * channels + c] = row[x * across + c * down];
                }
            }
        } else {
            for (std::int64_t c = 0; c < channels; ++c) {
                for (std::int64_t x = 0; x < columns; ++x) {
                    to[c * columns + x] = row[x * across + c * down];
                }
            }
        }
    }

    const BlendPiece& piece_;
    const BlendRows& rows_;
    bool gathered_ = false;
};

template <DType type>
inline Vec read_some(const typename Element<type>::Storage* from, std::int64_t count) {
    return count >= kLanes ? Element<type>::read(from) : Element<type>::read_part(from, count);
}

// One row of a mask at full width.
inline void stretch_safely(const Resize& resize, const float* row, float* scratch, float* out) {
    if (resize.source_width <= kRegisterTable) {
        // Whole registers are loaded, so what lies behind the row must be readable.
        std::memcpy(scratch, row, static_cast<std::size_t>(resize.source_width) * sizeof(float));
        row = scratch;
    }
    stretch(resize, row, out);
}

// `rows` rows of one plane.
template <DType type, bool has_background, bool streamed, int rows, class Storage>
inline void blend_plane(const RowRun& run, std::int64_t first, const SourceRows<Storage>& image,
                        const SourceRows<Storage>& background, Storage* out) {
    Vec weights[rows];
    for (int r = 0; r < rows; ++r) {
        weights[r] = broadcast(run.weights[first + r]);
    }
    const auto columns = [&](std::int64_t x, std::int64_t count) {
        const Vec low = load(run.low + x), change = load(run.high + x) - low;
#pragma GCC unroll 4
        for (int r = 0; r < rows; ++r) {
            const Vec mask = multiply_add(weights[r], change, low);
            const Vec photo = read_some<type>(image.data + r * image.row_stride + x, count);
            Vec value = mask * photo;
            if (has_background) {
                const Vec other =
                    read_some<type>(background.data + r * background.row_stride + x, count);
                value = multiply_add(mask, photo, (broadcast(1.0f) - mask) * other);
            }
            write_some<streamed>(out + r * run.width + x, Element<type>::narrow(value), count);
        }
    };
    std::int64_t x = 0;
    for (; x + kLanes <= run.width; x += kLanes) {
        columns(x, kLanes);
    }
    if (x < run.width) {
        columns(x, run.width - x);
    }
}

template <DType type, bool has_background, bool streamed>
void blend_rows_as(const BlendPiece& piece) {
    typedef typename Element<type>::Storage Storage;
    RowReader<Storage> images(piece, piece.image), backgrounds(piece, piece.background);
    const Resize& resize = piece.resize;
    const auto stretch_row = [&](std::int64_t source_row, float* out) {
        stretch_safely(resize, piece.mask + source_row * resize.source_width, piece.scratch, out);
    };
    const std::int64_t planes = piece.channels_last ? 1 : piece.channels;
    const auto blend_run = [&](const RowRun& run, std::int64_t first) {
        for (std::int64_t row = 0; row < run.rows;) {
            const std::int64_t count = run.rows - row >= kBlendRows ? kBlendRows : 1;
            SourceRows<Storage> image = images.rows(first + row, count), background = {};
            if (has_background) {
                background = backgrounds.rows(first + row, count);
            }
            Storage* out = static_cast<Storage*>(piece.out) + (first + row) * run.width;
            for (std::int64_t plane = 0; plane < planes; ++plane) {
                if (count == kBlendRows) {
                    blend_plane<type, has_background, streamed, kBlendRows>(run, row, image,
                                                                            background, out);
                } else {
                    blend_plane<type, has_background, streamed, 1>(run, row, image, background,
                                                                   out);
                }
                image.data += image.plane_stride;
                background.data += background.plane_stride;
                out += resize.height * run.width;
            }
            row += count;
        }
    };
    for_each_run(resize, piece.row_begin, piece.row_end,
                 piece.scratch + padded(resize.source_width), stretch_row, blend_run);
    if (streamed) {
        stream_fence();
    }
}

template <DType type> inline void blend_typed(const BlendPiece& piece) {
    if (piece.background.source.data != nullptr) {
        (piece.streamed ? blend_rows_as<type, true, true>
                        : blend_rows_as<type, true, false>)(piece);
    } else {
        (piece.streamed ? blend_rows_as<type, false, true>
                        : blend_rows_as<type, false, false>)(piece);
    }
}

void blend_under_mask(const BlendPiece& piece) {
    switch (piece.dtype) {
    case DType::kFloat32:
        return blend_typed<DType::kFloat32>(piece);
    case DType::kBFloat16:
        return blend_typed<DType::kBFloat16>(piece);
    case DType::kFloat16:
        return blend_typed<DType::kFloat16>(piece);
    }
}
