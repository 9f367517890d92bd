// Cuts the gradients of blending into pieces and spreads them over threads.
#include "mask.h"

#include "../common/parallel.h"
#include "../cpu/dispatch.h"
#include "../cpu/resize_tables.h"
#include "mask_kernels.h"

namespace pyxai::cpu {

namespace {

// Elements of a piece: what all masks read of one photo stays in the second-level cache.
constexpr std::int64_t kChunkElements = 65536;
// Elements that are summed over all masks at a time: their sums stay in the first-level cache.
constexpr std::int64_t kSumElements = 4096;

bool has_pixels(const BlendArgs& args) {
    return args.channels > 0 && args.height > 0 && args.width > 0;
}

std::int64_t row_elements(const BlendArgs& args) {
    return args.width * (args.channels_last ? args.channels : 1);
}

std::int64_t image_elements(const BlendArgs& args) {
    return args.channels * args.height * args.width;
}

// What pieces of both kinds have in common.
BlendPiece make_piece(const BlendArgs& args, const Resize& resize, float* scratch) {
    BlendPiece piece{};
    piece.mask = args.masks;
    piece.resize = resize;
    piece.dtype = args.dtype;
    piece.channels_last = args.channels_last;
    piece.channels = args.channels;
    piece.columns = args.width;
    piece.scratch = scratch;
    piece.out = args.out;
    return piece;
}

Resize prepare(const BlendArgs& args, void* memory) {
    return make_resize(args.mask_height, args.mask_width, args.height, args.width,
                       args.channels_last ? args.channels : 1, memory);
}

// ---- by the masks ----

// Bands of rows of the result, whose borders depend on the sizes alone. Rows between the same two
// rows of the mask belong to one band, so neighbours share one row of the mask at most: the band
// before owns it, and the other carries its part over.
class Bands {
  public:
    explicit Bands(const BlendArgs& args)
        : args_(args),
          scale_(static_cast<float>(args.mask_height) / static_cast<float>(args.height)),
          least_rows_(std::max<std::int64_t>(1, kChunkElements / (args.channels * args.width))) {}

    std::int32_t mask_row(std::int64_t y) const {
        return bilinear_tap(y, args_.mask_height, scale_).low;
    }

    std::int64_t end(std::int64_t begin) const {
        std::int64_t y = begin + least_rows_;
        while (y < args_.height && mask_row(y) == mask_row(y - 1)) {
            ++y;
        }
        return std::min(y, args_.height);
    }

    std::int64_t count() const {
        std::int64_t bands = 0;
        for (std::int64_t y = 0; y < args_.height; y = end(y)) {
            ++bands;
        }
        return bands;
    }

  private:
    const BlendArgs& args_;
    float scale_;
    std::int64_t least_rows_;
};

// Floats of scratch memory of a thread.
std::int64_t strip_part(const BlendArgs& args) {
    return padded(args.channels * args.width);
}

std::int64_t slopes_part(const BlendArgs& args) {
    return slope_scratch(args.mask_width, row_elements(args)) + 2 * strip_part(args);
}

// Floats that hold the first rows of the bands, two borders of 8 bytes being four floats.
std::int64_t table_part(std::int64_t bands) {
    return padded(2 * (bands + 1));
}

class SlopeMaker {
  public:
    SlopeMaker(const BlendSlopesArgs& args, void* memory)
        : kernels_(mask_kernels()), args_(args), blend_(args.blend), bands_(blend_),
          resize_(prepare(blend_, memory)), band_count_(bands_.count()) {
        float* const table =
            static_cast<float*>(memory) + resize_tables(blend_.height, resize_.width);
        borders_ = reinterpret_cast<std::int64_t*>(table);
        borders_[0] = 0;
        for (std::int64_t i = 0; i < band_count_; ++i) {
            borders_[i + 1] = bands_.end(borders_[i]);
        }
        carries_ = table + table_part(band_count_);
        scratch_ = carries_ + padded(blend_.count * band_count_ * blend_.mask_width);
    }

    void all(int num_threads) const {
        const std::int64_t count = blend_.count;
        // A band of a shared photo is read once for all masks.
        const bool shared = blend_.images.image_stride == 0;
        parallel_for(count * band_count_, image_elements(blend_) / band_count_, num_threads,
                     [&](std::int64_t begin, std::int64_t end, int thread) {
                         for (std::int64_t i = begin; i < end; ++i) {
                             const std::int64_t m = shared ? i % count : i / band_count_;
                             band(m, shared ? i / count : i % band_count_, thread);
                         }
                     });
        for (std::int64_t m = 0; m < count; ++m) {
            for (std::int64_t i = 1; i < band_count_; ++i) {
                const float* const from = carry(m, i);
                float* const to = slopes(m) + first_row(i) * blend_.mask_width;
                for (std::int64_t x = 0; x < blend_.mask_width; ++x) {
                    to[x] += from[x];
                }
            }
        }
    }

  private:
    std::int64_t first_row(std::int64_t band) const {
        return resize_.row_low[borders_[band]];
    }

    float* carry(std::int64_t m, std::int64_t band) const {
        return carries_ + (m * band_count_ + band) * blend_.mask_width;
    }

    float* slopes(std::int64_t m) const {
        return args_.slopes + m * blend_.mask_height * blend_.mask_width;
    }

    const void* moved(const void* data, std::int64_t elements) const {
        return static_cast<const char*>(data) + elements * element_bytes(blend_.dtype);
    }

    BlendRows source(const BlendSource& of, std::int64_t m, float* strip) const {
        BlendRows rows{of, has_rows_in_place(blend_, of), strip};
        if (of.data != nullptr) {
            rows.source.data = moved(of.data, m * of.image_stride);
        }
        return rows;
    }

    void band(std::int64_t m, std::int64_t index, int thread) const {
        float* const scratch = scratch_ + thread * slopes_part(blend_);
        float* const strips = scratch + slope_scratch(blend_.mask_width, resize_.width);
        BlendSlopesPiece piece;
        piece.blend = make_piece(blend_, resize_, scratch);
        piece.blend.image = source(blend_.images, m, strips);
        piece.blend.background = source(blend_.backgrounds, m, strips + strip_part(blend_));
        piece.blend.row_begin = borders_[index];
        piece.blend.row_end = borders_[index + 1];
        piece.gradients = moved(args_.gradients, m * image_elements(blend_));
        piece.slopes = slopes(m);
        piece.owned_begin = index > 0 ? first_row(index) + 1 : 0;
        piece.owned_end = index + 1 < band_count_ ? first_row(index + 1) + 1 : blend_.mask_height;
        piece.carry = index > 0 ? carry(m, index) : nullptr;
        piece.same_columns = blend_.mask_width == resize_.width && blend_.width == resize_.width;
        kernels_.blend_slopes(piece);
    }

    const MaskKernels& kernels_;
    const BlendSlopesArgs& args_;
    const BlendArgs& blend_;
    Bands bands_;
    Resize resize_;
    std::int64_t band_count_;
    std::int64_t* borders_; // first rows of the bands, and the end
    float* carries_;        // [M, bands, mask_width]
    float* scratch_;        // one area a thread
};

// ---- by photos that masks share ----

std::int64_t sum_rows(const BlendArgs& args) {
    return std::max<std::int64_t>(1, kSumElements / (args.channels * args.width));
}

std::int64_t sums_part(const BlendArgs& args) {
    const std::int64_t planes = args.channels_last ? 1 : args.channels;
    return resize_scratch(args.mask_width, row_elements(args)) +
           planes * sum_rows(args) * padded(row_elements(args));
}

} // namespace

std::int64_t blend_slopes_workspace(const BlendSlopesArgs& args, int num_threads) {
    const BlendArgs& blend = args.blend;
    if (blend.count == 0 || !has_pixels(blend)) {
        return 0;
    }
    const std::int64_t bands = Bands(blend).count();
    return 4 * (resize_tables(blend.height, row_elements(blend)) + table_part(bands) +
                padded(blend.count * bands * blend.mask_width) + num_threads * slopes_part(blend));
}

void blend_slopes(const BlendSlopesArgs& args, void* workspace, int num_threads) {
    const BlendArgs& blend = args.blend;
    if (blend.count > 0 && has_pixels(blend)) {
        SlopeMaker(args, workspace).all(num_threads);
        return;
    }
    std::fill_n(args.slopes, blend.count * blend.mask_height * blend.mask_width, 0.0f);
}

std::int64_t sum_shown_workspace(const ShownSumArgs& args, int num_threads) {
    if (!has_pixels(args.blend)) {
        return 0;
    }
    return 4 * (resize_tables(args.blend.height, row_elements(args.blend)) +
                num_threads * sums_part(args.blend));
}

void sum_shown(const ShownSumArgs& args, void* workspace, int num_threads) {
    const BlendArgs& blend = args.blend;
    if (!has_pixels(blend)) {
        return;
    }
    const Resize resize = prepare(blend, workspace);
    float* const scratch =
        static_cast<float*>(workspace) + resize_tables(blend.height, resize.width);
    const std::int64_t rows = sum_rows(blend), chunks = (blend.height + rows - 1) / rows;
    const std::int64_t work =
        rows * blend.channels * blend.width * std::max<std::int64_t>(1, blend.count);
    parallel_for(chunks, work, num_threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        for (std::int64_t i = begin; i < end; ++i) {
            ShownSumPiece piece;
            piece.blend = make_piece(blend, resize, scratch + thread * sums_part(blend));
            piece.blend.row_begin = i * rows;
            piece.blend.row_end = std::min(i * rows + rows, blend.height);
            piece.gradients = args.gradients;
            piece.count = blend.count;
            piece.sums = piece.blend.scratch + resize_scratch(blend.mask_width, resize.width);
            mask_kernels().sum_shown(piece);
        }
    });
}

} // namespace pyxai::cpu
