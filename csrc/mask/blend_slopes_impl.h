// Gradients of blending by the masks, and by photos that masks share: bodies, compiled once per
// instruction set. Included inside namespace pyxai::cpu::PYXAI_ISA { namespace { ... } }.

// Rows of the mask at full width, as the rows of the result add to them, until there are as many as
// lanes; then what is across is added up, each row in a lane.
class SlopeRows {
  public:
    explicit SlopeRows(const BlendSlopesPiece& piece)
        : piece_(piece), resize_(piece.blend.resize), stride_(padded(resize_.width)),
          across_(piece.blend.scratch + kSlopeRows * stride_) {
        const std::int64_t width = resize_.source_width;
        fill_zero(piece_.slopes + piece_.owned_begin * width,
                  (piece_.owned_end - piece_.owned_begin) * width);
        if (piece_.carry != nullptr) {
            fill_zero(piece_.carry, width);
        }
    }

    // Makes the two rows next to each other that follow, the first of which may be the last so far.
    void open(std::int32_t low, std::int32_t high) {
        const bool continues = used_ > 0 && sources_[used_ - 1] == low;
        const int more = (continues ? 0 : 1) + (high != low ? 1 : 0);
        if (used_ + more > kLanes) {
            flush(continues ? used_ - 1 : used_);
            if (continues) {
                std::memcpy(row(0), row(used_ - 1), row_bytes());
                sources_[0] = low;
            }
            used_ = continues ? 1 : 0;
        }
        if (!continues) {
            add(low);
        }
        low_ = row(used_ - 1);
        if (high != low) {
            add(high);
        }
        high_ = row(used_ - 1);
    }

    float* low() const {
        return low_;
    }

    float* high() const {
        return high_;
    }

    void finish() {
        flush(used_);
        used_ = 0;
    }

  private:
    static void fill_zero(float* to, std::int64_t count) {
        std::memset(to, 0, static_cast<std::size_t>(count) * sizeof(float));
    }

    std::size_t row_bytes() const {
        return static_cast<std::size_t>(stride_) * sizeof(float);
    }

    float* row(int index) const {
        return piece_.blend.scratch + index * stride_;
    }

    void add(std::int32_t source) {
        fill_zero(row(used_), stride_);
        sources_[used_++] = source;
    }

    float* target(int index) const {
        const std::int32_t source = sources_[index];
        return source < piece_.owned_begin ? piece_.carry
                                           : piece_.slopes + source * resize_.source_width;
    }

    void flush(int count) const {
        const std::int64_t width = resize_.source_width;
        if (piece_.same_columns) {
            for (int i = 0; i < count; ++i) {
                std::memcpy(target(i), row(i), static_cast<std::size_t>(width) * sizeof(float));
            }
        } else if (count > 0) {
            sum_across();
            for (int i = 0; i < count; ++i) {
                float* const to = target(i);
                for (std::int64_t x = 0; x < width; ++x) {
                    to[x] = across_[x * kLanes + i];
                }
            }
        }
    }

    // Neighbours in the result add to the same two columns of the mask: their sums stay in
    // registers.
    void sum_across() const {
        const IntVec rows = lane_numbers() * static_cast<std::int32_t>(stride_);
        fill_zero(across_, resize_.source_width * kLanes);
        const auto add_to = [&](std::int32_t column, Vec sum) {
            float* const to = across_ + column * kLanes;
            store(to, load(to) + sum);
        };
        const Vec one = broadcast(1.0f);
        for (std::int64_t x = 0; x < resize_.width;) {
            const std::int32_t low = resize_.low[x], high = resize_.high[x];
            Vec low_sum{}, high_sum{};
            for (; x < resize_.width && resize_.low[x] == low; ++x) {
                const Vec values = gather(row(0) + x, rows), weight = broadcast(resize_.weight[x]);
                low_sum = multiply_add(one - weight, values, low_sum);
                high_sum = multiply_add(weight, values, high_sum);
            }
            add_to(low, low_sum);
            add_to(high, high_sum);
        }
    }

    const BlendSlopesPiece& piece_;
    const Resize& resize_;
    const std::int64_t stride_;
    float* const across_; // [source_width][kLanes]
    std::int32_t sources_[kSlopeRows];
    int used_ = 0;
    float *low_ = nullptr, *high_ = nullptr;
};

// One row of `planes` planes, added to two rows of the mask, or to the lower one only.
template <DType type, bool has_background, bool both, int planes, class Storage>
inline void add_slopes(const Storage* gradients, std::int64_t plane,
                       const SourceRows<Storage>& image, const SourceRows<Storage>& background,
                       std::int64_t width, float weight, float* low, float* high) {
    const Vec high_weight = broadcast(weight), low_weight = broadcast(1.0f - weight);
    const auto columns = [&](std::int64_t x, std::int64_t count) {
        Vec pixels{};
#pragma GCC unroll 3
        for (int c = 0; c < planes; ++c) {
            Vec change = read_some<type>(image.data + c * image.plane_stride + x, count);
            if (has_background) {
                change -= read_some<type>(background.data + c * background.plane_stride + x, count);
            }
            const Vec gradient = read_some<type>(gradients + c * plane + x, count);
            pixels = c == 0 ? gradient * change : multiply_add(gradient, change, pixels);
        }
        if (both) {
            store(low + x, multiply_add(low_weight, pixels, load(low + x)));
            store(high + x, multiply_add(high_weight, pixels, load(high + x)));
        } else {
            store(low + x, load(low + x) + pixels);
        }
    };
    std::int64_t x = 0;
    for (; x + kLanes <= width; x += kLanes) {
        columns(x, kLanes);
    }
    if (x < width) {
        columns(x, width - x);
    }
}

template <DType type, bool has_background> void blend_slopes_as(const BlendSlopesPiece& piece) {
    typedef typename Element<type>::Storage Storage;
    const BlendPiece& blend = piece.blend;
    const Resize& resize = blend.resize;
    RowReader<Storage> images(blend, blend.image), backgrounds(blend, blend.background);
    SlopeRows slopes(piece);
    const std::int64_t planes = blend.channels_last ? 1 : blend.channels;
    const std::int64_t plane = resize.height * resize.width;
    const std::int32_t last = static_cast<std::int32_t>(resize.source_height) - 1;
    for (std::int64_t y = blend.row_begin; y < blend.row_end; ++y) {
        const std::int32_t low = resize.row_low[y];
        if (y == blend.row_begin || low != resize.row_low[y - 1]) {
            slopes.open(low, low < last ? low + 1 : last);
        }
        SourceRows<Storage> image = images.rows(y, 1), background = {};
        if (has_background) {
            background = backgrounds.rows(y, 1);
        }
        const Storage* gradients = static_cast<const Storage*>(piece.gradients) + y * resize.width;
        const float weight = resize.row_weight[y];
        const bool both = low < last && weight != 0.0f;
        for (std::int64_t c = 0; c < planes;) {
            const bool three = planes - c >= 3;
            const auto add = both ? (three ? add_slopes<type, has_background, true, 3, Storage>
                                           : add_slopes<type, has_background, true, 1, Storage>)
                                  : (three ? add_slopes<type, has_background, false, 3, Storage>
                                           : add_slopes<type, has_background, false, 1, Storage>);
            add(gradients, plane, image, background, resize.width, weight, slopes.low(),
                slopes.high());
            const std::int64_t done = three ? 3 : 1;
            gradients += done * plane;
            image.data += done * image.plane_stride;
            background.data += done * background.plane_stride;
            c += done;
        }
    }
    slopes.finish();
}

void blend_slopes(const BlendSlopesPiece& piece) {
    const bool background = piece.blend.background.source.data != nullptr;
    switch (piece.blend.dtype) {
    case DType::kFloat32:
        return (background ? blend_slopes_as<DType::kFloat32, true>
                           : blend_slopes_as<DType::kFloat32, false>)(piece);
    case DType::kBFloat16:
        return (background ? blend_slopes_as<DType::kBFloat16, true>
                           : blend_slopes_as<DType::kBFloat16, false>)(piece);
    case DType::kFloat16:
        return (background ? blend_slopes_as<DType::kFloat16, true>
                           : blend_slopes_as<DType::kFloat16, false>)(piece);
    }
}

// ---- sums over masks ----

template <DType type> void sum_shown_as(const ShownSumPiece& piece) {
    typedef typename Element<type>::Storage Storage;
    const BlendPiece& blend = piece.blend;
    const Resize& resize = blend.resize;
    const std::int64_t width = resize.width, stride = padded(width);
    const std::int64_t planes = blend.channels_last ? 1 : blend.channels;
    const std::int64_t plane = resize.height * width, begin = blend.row_begin;
    const std::int64_t strip = (blend.row_end - begin) * stride; // of one plane
    std::memset(piece.sums, 0, static_cast<std::size_t>(planes * strip) * sizeof(float));
    for (std::int64_t m = 0; m < piece.count; ++m) {
        const float* const mask = blend.mask + m * resize.source_height * resize.source_width;
        const Storage* const gradients =
            static_cast<const Storage*>(piece.gradients) + m * planes * plane;
        const auto stretch_row = [&](std::int64_t source_row, float* out) {
            stretch_safely(resize, mask + source_row * resize.source_width, blend.scratch, out);
        };
        const auto add_run = [&](const RowRun& run, std::int64_t first) {
            for (std::int64_t i = 0; i < run.rows * planes; ++i) {
                const std::int64_t row = i / planes, c = i % planes, y = first + row;
                const Storage* const from = gradients + c * plane + y * width;
                float* const to = piece.sums + c * strip + (y - begin) * stride;
                const Vec weight = broadcast(run.weights[row]);
                for (std::int64_t x = 0; x < width; x += kLanes) {
                    const Vec low = load(run.low + x), change = load(run.high + x) - low;
                    const Vec shown = multiply_add(weight, change, low);
                    const Vec gradient = read_some<type>(from + x, width - x);
                    store(to + x, multiply_add(gradient, shown, load(to + x)));
                }
            }
        };
        for_each_run(resize, begin, blend.row_end, blend.scratch + padded(resize.source_width),
                     stretch_row, add_run);
    }
    Storage* const out = static_cast<Storage*>(blend.out);
    for (std::int64_t i = 0; i < planes * (blend.row_end - begin); ++i) {
        const std::int64_t c = i % planes, row = i / planes;
        const float* const from = piece.sums + c * strip + row * stride;
        Storage* const to = out + c * plane + (begin + row) * width;
        for (std::int64_t x = 0; x < width; x += kLanes) {
            write_some<false>(to + x, Element<type>::narrow(load(from + x)), width - x);
        }
    }
}

void sum_shown(const ShownSumPiece& piece) {
    switch (piece.blend.dtype) {
    case DType::kFloat32:
        return sum_shown_as<DType::kFloat32>(piece);
    case DType::kBFloat16:
        return sum_shown_as<DType::kBFloat16>(piece);
    case DType::kFloat16:
        return sum_shown_as<DType::kFloat16>(piece);
    }
}
