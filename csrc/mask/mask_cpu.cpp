// Cuts the mask kernels into pieces and spreads them over threads.
#include "mask.h"

#include "../common/parallel.h"
#include "../cpu/dispatch.h"
#include "../cpu/resize_tables.h"
#include "mask_kernels.h"

namespace pyxai::cpu {

namespace {

// Elements blended at a time: what all masks read of one photo stays in the second-level cache.
constexpr std::int64_t kChunkElements = 65536;
constexpr std::int64_t kMinChunkRows = 16;
// Rows written past the cache start at this alignment.
constexpr std::int64_t kLine = 64;

bool is_empty(const BlendArgs& args) {
    return args.count == 0 || args.channels == 0 || args.height == 0 || args.width == 0;
}

// Elements in a row of the result, see BlendPiece.
std::int64_t row_elements(const BlendArgs& args) {
    return args.width * (args.channels_last ? args.channels : 1);
}

// Floats of scratch memory of a thread: for the mask, and a strip for each source.
std::int64_t resize_part(const BlendArgs& args) {
    return resize_scratch(args.mask_width, row_elements(args));
}

std::int64_t strip_part(const BlendArgs& args) {
    return kBlendRows * padded(args.channels * args.width);
}

class Blender {
  public:
    Blender(const BlendArgs& args, void* memory)
        : kernels_(mask_kernels()), args_(args),
          resize_(make_resize(args.mask_height, args.mask_width, args.height, args.width,
                              args.channels_last ? args.channels : 1, memory)),
          scratch_(static_cast<float*>(memory) + resize_tables(args.height, resize_.width)),
          image_bytes_(args.channels * args.height * args.width * element_bytes(args.dtype)) {
        const std::int64_t row_bytes = resize_.width * element_bytes(args.dtype);
        streamed_ = args.count * image_bytes_ > last_level_cache_bytes() &&
                    row_bytes % kLine == 0 &&
                    reinterpret_cast<std::uintptr_t>(args.out) % kLine == 0;
    }

    void all(int num_threads) const {
        const std::int64_t pixels = args_.channels * args_.width;
        const std::int64_t chunk =
            std::min(args_.height, std::max(kMinChunkRows, kChunkElements / pixels));
        const std::int64_t chunks = (args_.height + chunk - 1) / chunk;
        // A chunk of a shared photo is read once for all masks.
        const bool shared = args_.images.image_stride == 0;
        parallel_for(args_.count * chunks, chunk * pixels, num_threads,
                     [&](std::int64_t begin, std::int64_t end, int thread) {
                         for (std::int64_t i = begin; i < end; ++i) {
                             const std::int64_t m = shared ? i % args_.count : i / chunks;
                             const std::int64_t row =
                                 (shared ? i / args_.count : i % chunks) * chunk;
                             rows(m, row, std::min(row + chunk, args_.height), thread);
                         }
                     });
    }

  private:
    BlendRows source(const BlendSource& of, std::int64_t m, float* strip) const {
        BlendRows rows{of, has_rows_in_place(args_, of), strip};
        if (of.data != nullptr) {
            rows.source.data = static_cast<const char*>(of.data) +
                               m * of.image_stride * element_bytes(args_.dtype);
        }
        return rows;
    }

    void rows(std::int64_t m, std::int64_t row_begin, std::int64_t row_end, int thread) const {
        float* const scratch = scratch_ + thread * (resize_part(args_) + 2 * strip_part(args_));
        float* const strips = scratch + resize_part(args_);
        BlendPiece piece;
        piece.mask = args_.masks + m * args_.mask_height * args_.mask_width;
        piece.resize = resize_;
        piece.image = source(args_.images, m, strips);
        piece.background = source(args_.backgrounds, m, strips + strip_part(args_));
        piece.dtype = args_.dtype;
        piece.channels_last = args_.channels_last;
        piece.channels = args_.channels;
        piece.columns = args_.width;
        piece.row_begin = row_begin;
        piece.row_end = row_end;
        piece.scratch = scratch;
        piece.out = static_cast<char*>(args_.out) + m * image_bytes_;
        piece.streamed = streamed_;
        kernels_.blend_under_mask(piece);
    }

    const MaskKernels& kernels_;
    const BlendArgs& args_;
    Resize resize_;
    float* scratch_; // one area a thread
    std::int64_t image_bytes_;
    bool streamed_;
};

} // namespace

std::int64_t blend_workspace(const BlendArgs& args, int num_threads) {
    return 4 * (resize_tables(args.height, row_elements(args)) +
                num_threads * (resize_part(args) + 2 * strip_part(args)));
}

void blend(const BlendArgs& args, void* workspace, int num_threads) {
    if (!is_empty(args)) {
        Blender(args, workspace).all(num_threads);
    }
}

} // namespace pyxai::cpu
