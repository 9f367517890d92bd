// Cuts the CAM kernels into pieces and spreads them over threads.
#include "cam.h"

#include "../common/parallel.h"
#include "../cpu/dispatch.h"
#include "../cpu/resize_tables.h"
#include "cam_kernels.h"

namespace pyxai::cpu {

namespace {

// Packing a panel pays from this number of targets on.
constexpr std::int64_t kPackedTargets = 4;
// Positions projected at a time: their sums stay in the first-level cache.
constexpr std::int64_t kProjectChunk = 512;
// Targets multiplied by a panel at a time, so that few images still make many pieces.
constexpr std::int64_t kTargetChunk = 48;
// Rows rendered at a time when there are fewer maps than threads.
constexpr std::int64_t kRowChunk = 64;

std::int64_t blocks(std::int64_t size, std::int64_t block) {
    return (size + block - 1) / block;
}

// The positions [position, position + count) of image n, all targets.
ProjectPiece piece_at(const ProjectArgs& args, std::int64_t n, std::int64_t position,
                      std::int64_t count) {
    const std::int64_t stride = args.channels_last ? args.channels : args.positions;
    const std::int64_t first =
        n * args.channels * args.positions + position * (args.channels_last ? args.channels : 1);
    ProjectPiece piece;
    piece.features =
        static_cast<const char*>(args.features) + first * element_bytes(args.features_dtype);
    piece.dtype = args.features_dtype;
    piece.feature_stride = stride;
    piece.channels = args.channels;
    piece.positions = count;
    piece.targets = args.targets;
    piece.weights = args.weights + (args.weights_per_image ? n * args.targets * args.channels : 0);
    piece.maps = args.maps + n * args.targets * args.positions + position;
    piece.map_stride = args.positions;
    return piece;
}

void project_piece(const CamKernels& kernels, const ProjectArgs& args, const ProjectPiece& piece) {
    (args.channels_last ? kernels.project_channels_last : kernels.project_planes)(piece);
}

// Chunk i of image i / chunks. The kernels sum in an order that depends on how long a piece is, so
// everyone has to cut the positions in the same way.
void project_chunk(const CamKernels& kernels, const ProjectArgs& args, std::int64_t i) {
    const std::int64_t chunks = blocks(args.positions, kProjectChunk);
    const std::int64_t position = i % chunks * kProjectChunk;
    const std::int64_t count = std::min(kProjectChunk, args.positions - position);
    project_piece(kernels, args, piece_at(args, i / chunks, position, count));
}

void project_few(const ProjectArgs& args, int num_threads) {
    const CamKernels& kernels = cam_kernels();
    const std::int64_t chunks = blocks(args.positions, kProjectChunk);
    const std::int64_t work =
        args.channels * args.targets * std::min(args.positions, kProjectChunk);
    parallel_for(args.images * chunks, work, num_threads,
                 [&](std::int64_t begin, std::int64_t end, int) {
                     for (std::int64_t i = begin; i < end; ++i) {
                         project_chunk(kernels, args, i);
                     }
                 });
}

void project_many(const ProjectArgs& args, float* workspace, int num_threads) {
    const CamKernels& kernels = cam_kernels();
    const std::int64_t columns = kernels.panel_columns;
    const std::int64_t panels = blocks(args.positions, columns);
    const std::int64_t target_chunks = blocks(args.targets, kTargetChunk);
    const std::int64_t work =
        args.channels * columns * std::min(args.targets, kTargetChunk) / 8; // 8 per instruction
    parallel_for(args.images * panels * target_chunks, work, num_threads,
                 [&](std::int64_t begin, std::int64_t end, int thread) {
                     float* panel = workspace + thread * args.channels * columns;
                     std::int64_t packed = -1;
                     for (std::int64_t i = begin; i < end; ++i) {
                         const std::int64_t which = i / target_chunks;
                         const std::int64_t position = which % panels * columns;
                         ProjectPiece piece =
                             piece_at(args, which / panels, position,
                                      std::min(columns, args.positions - position));
                         if (packed != which) {
                             (args.channels_last ? kernels.pack_channels_last
                                                 : kernels.pack_planes)(piece, panel);
                             packed = which;
                         }
                         const std::int64_t target = i % target_chunks * kTargetChunk;
                         piece.weights += target * args.channels;
                         piece.maps += target * args.positions;
                         piece.targets = std::min(kTargetChunk, args.targets - target);
                         kernels.multiply_panel(piece, panel);
                     }
                 });
}

class Renderer {
  public:
    Renderer(const RenderArgs& args, void* memory, const OverlayArgs* overlay)
        : kernels_(cam_kernels()), args_(args), overlay_(overlay),
          resize_(make_resize(args.map_height, args.map_width, args.height, args.width, 1, memory)),
          scratch_(static_cast<float*>(memory) + resize_tables(args.height, args.width)) {
        const std::int64_t bytes = args.count * args.height * args.width * 4;
        format_ = overlay != nullptr                 ? PixelFormat::kOverlay
                  : args.out_uint8                   ? PixelFormat::kByte
                  : bytes > last_level_cache_bytes() ? PixelFormat::kFloatStreamed
                                                     : PixelFormat::kFloat;
    }

    void rows(std::int64_t m, std::int64_t row_begin, std::int64_t row_end, int thread) const {
        const std::int64_t pixels = args_.height * args_.width;
        RenderPiece piece;
        piece.map = args_.maps + m * args_.map_height * args_.map_width;
        piece.resize = resize_;
        piece.relu = args_.relu;
        piece.row_begin = row_begin;
        piece.row_end = row_end;
        piece.scratch = scratch_ + thread * resize_scratch(args_.map_width, args_.width);
        piece.format = format_;
        const std::int64_t pixel_bytes = overlay_ != nullptr ? 3 : args_.out_uint8 ? 1 : 4;
        piece.out = static_cast<char*>(args_.out) + m * pixels * pixel_bytes;
        piece.photo = overlay_ != nullptr ? overlay_->photos + m * pixels * 3 : nullptr;
        piece.colors = overlay_ != nullptr ? overlay_->colors : nullptr;
        kernels_.scale_map(piece.map, args_.map_height * args_.map_width, args_.relu, args_.minmax,
                           &piece.offset, &piece.factor);
        kernels_.render_rows(piece);
    }

    void all(int num_threads) const {
        const bool enough_maps = args_.count >= 2 * static_cast<std::int64_t>(num_threads);
        const std::int64_t chunk = enough_maps || num_threads == 1 ? args_.height : kRowChunk;
        const std::int64_t chunks = blocks(args_.height, chunk);
        parallel_for(args_.count * chunks, std::min(chunk, args_.height) * args_.width, num_threads,
                     [&](std::int64_t begin, std::int64_t end, int thread) {
                         for (std::int64_t i = begin; i < end; ++i) {
                             const std::int64_t row = i % chunks * chunk;
                             rows(i / chunks, row, std::min(row + chunk, args_.height), thread);
                         }
                     });
    }

  private:
    const CamKernels& kernels_;
    const RenderArgs& args_;
    const OverlayArgs* overlay_;
    Resize resize_;
    float* scratch_; // one area a thread
    PixelFormat format_;
};

bool is_empty(const RenderArgs& args) {
    return args.count == 0 || args.height == 0 || args.width == 0;
}

} // namespace

std::int64_t project_workspace(const ProjectArgs& args, int num_threads) {
    if (args.targets < kPackedTargets) {
        return 0;
    }
    return 4 * num_threads * args.channels * cam_kernels().panel_columns;
}

std::int64_t render_workspace(const RenderArgs& args, int num_threads) {
    return 4 * (resize_tables(args.height, args.width) +
                num_threads * resize_scratch(args.map_width, args.width));
}

std::int64_t project_render_workspace(const ProjectRenderArgs& args, int num_threads) {
    return project_workspace(args.project, num_threads) +
           render_workspace(args.render, num_threads);
}

std::int64_t overlay_workspace(const OverlayArgs& args, int num_threads) {
    return render_workspace(args.render, num_threads);
}

void project(const ProjectArgs& args, void* workspace, int num_threads) {
    if (args.channels == 0) {
        std::fill_n(args.maps, args.images * args.targets * args.positions, 0.0f);
    } else if (args.targets < kPackedTargets) {
        project_few(args, num_threads);
    } else {
        project_many(args, static_cast<float*>(workspace), num_threads);
    }
}

void render(const RenderArgs& args, void* workspace, int num_threads) {
    if (!is_empty(args)) {
        Renderer(args, workspace, nullptr).all(num_threads);
    }
}

void project_render(const ProjectRenderArgs& args, void* workspace, int num_threads) {
    const ProjectArgs& projection = args.project;
    const RenderArgs& rendering = args.render;
    if (projection.targets != 1 || projection.images < num_threads || is_empty(rendering)) {
        project(projection, workspace, num_threads);
        render(rendering,
               static_cast<char*>(workspace) + project_workspace(projection, num_threads),
               num_threads);
        return;
    }
    const CamKernels& kernels = cam_kernels();
    const Renderer renderer(rendering, workspace, nullptr);
    const std::int64_t chunks = blocks(projection.positions, kProjectChunk);
    const std::int64_t work =
        projection.channels * projection.positions + rendering.height * rendering.width;
    parallel_for(projection.images, work, num_threads,
                 [&](std::int64_t begin, std::int64_t end, int thread) {
                     for (std::int64_t n = begin; n < end; ++n) {
                         for (std::int64_t i = n * chunks; i < (n + 1) * chunks; ++i) {
                             project_chunk(kernels, projection, i);
                         }
                         renderer.rows(n, 0, rendering.height, thread);
                     }
                 });
}

void overlay(const OverlayArgs& args, void* workspace, int num_threads) {
    if (!is_empty(args.render)) {
        Renderer(args.render, workspace, &args).all(num_threads);
    }
}

} // namespace pyxai::cpu
