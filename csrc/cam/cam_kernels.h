// The pieces of work of the CAM kernels that exist once per instruction set. cam_cpu.cpp cuts the
// whole into pieces and spreads them over threads; the bodies are in the *_impl.h beside it.
#pragma once

#include <cstdint>

#include "../common/dtype.h"
#include "../cpu/resize.h"

namespace pyxai::cpu {

// A run of positions of one image, projected on a few targets.
struct ProjectPiece {
    const void* features; // element of channel 0 at the first position
    DType dtype;
    std::int64_t feature_stride; // between channels, or between positions when channels come last
    std::int64_t channels, positions, targets;
    const float* weights; // [targets, channels]
    float* maps;          // [targets, positions], rows map_stride apart
    std::int64_t map_stride;
};

enum class PixelFormat { kFloat, kFloatStreamed, kByte, kOverlay };

// Some rows of one map, resized.
struct RenderPiece {
    const float* map; // [source_height, source_width]
    Resize resize;
    bool relu;
    float offset, factor; // value = (u - offset) * factor
    std::int64_t row_begin, row_end;
    float* scratch; // resize_scratch(...) floats, 64-byte aligned
    PixelFormat format;
    void* out;                  // the whole picture [height, width] or [height, width, 3]
    const std::uint8_t* photo;  // [height, width, 3] for kOverlay
    const std::uint8_t* colors; // [256, 4] for kOverlay
};

struct CamKernels {
    std::int64_t panel_columns;                         // positions that a packed panel holds
    void (*project_planes)(const ProjectPiece&);        // features [C, P]
    void (*project_channels_last)(const ProjectPiece&); // features [P, C]
    // float32 panel [channels, panel_columns] of at most panel_columns positions, zero-padded
    void (*pack_planes)(const ProjectPiece&, float* panel);
    void (*pack_channels_last)(const ProjectPiece&, float* panel);
    void (*multiply_panel)(const ProjectPiece&, const float* panel);
    // offset and factor of a map, see cam.h
    void (*scale_map)(const float* map, std::int64_t size, bool relu, bool minmax, float* offset,
                      float* factor);
    void (*render_rows)(const RenderPiece&);
};

namespace baseline {
extern const CamKernels kCamKernels;
}
namespace avx2 {
extern const CamKernels kCamKernels;
}
namespace avx512 {
extern const CamKernels kCamKernels;
}
namespace avx512vbmi {
extern const CamKernels kCamKernels;
}

} // namespace pyxai::cpu
