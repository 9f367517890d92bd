// Addresses and sizes from Python as arguments of the CAM kernels; shared by both binding files.
#pragma once

#include <cstdint>

#include "../common/bind.h"
#include "../common/check.h"
#include "cam.h"

namespace pyxai {

inline ProjectArgs project_args(Address features, int dtype, bool channels_last, Address weights,
                                bool weights_per_image, Address maps, std::int64_t images,
                                std::int64_t channels, std::int64_t targets,
                                std::int64_t positions) {
    PYXAI_CHECK(dtype >= 0 && dtype <= 2, "unknown features dtype");
    check_sizes("features", {images, channels, positions});
    check_sizes("weights", {weights_per_image ? images : 1, targets, channels});
    check_sizes("maps of the features", {images, targets, positions});
    check_aligned("features", features, element_bytes(static_cast<DType>(dtype)));
    check_aligned("weights", weights, sizeof(float));
    check_aligned("maps", maps, sizeof(float));
    const bool has_output = images > 0 && targets > 0 && positions > 0;
    PYXAI_CHECK(!has_output || maps != 0, "maps is null");
    PYXAI_CHECK(!has_output || channels == 0 || (features != 0 && weights != 0),
                "features or weights is null");
    return ProjectArgs{reinterpret_cast<const void*>(features),
                       static_cast<DType>(dtype),
                       channels_last,
                       reinterpret_cast<const float*>(weights),
                       weights_per_image,
                       reinterpret_cast<float*>(maps),
                       images,
                       channels,
                       targets,
                       positions};
}

inline RenderArgs render_args(Address maps, std::int64_t count, std::int64_t map_height,
                              std::int64_t map_width, std::int64_t height, std::int64_t width,
                              bool relu, bool minmax, Address out, bool out_uint8) {
    check_sizes("maps", {count, map_height, map_width});
    check_sizes("photos or out", {count, height, width});
    PYXAI_CHECK(map_height < kLongest && map_width < kLongest && height < kLongest &&
                    width < kLongest,
                "maps, photos or size: too long");
    const bool has_output = count > 0 && height > 0 && width > 0;
    PYXAI_CHECK(!has_output || (map_height > 0 && map_width > 0), "empty map");
    PYXAI_CHECK(!has_output || (maps != 0 && out != 0), "maps or out is null");
    check_aligned("maps", maps, sizeof(float));
    check_aligned("out", out, out_uint8 ? 1 : sizeof(float));
    return RenderArgs{reinterpret_cast<const float*>(maps),
                      count,
                      map_height,
                      map_width,
                      height,
                      width,
                      relu,
                      minmax,
                      reinterpret_cast<void*>(out),
                      out_uint8};
}

inline OverlayArgs overlay_args(Address photos, Address colors, const RenderArgs& render) {
    const bool has_output = render.count > 0 && render.height > 0 && render.width > 0;
    PYXAI_CHECK(!has_output || (photos != 0 && colors != 0), "photos or colors is null");
    return OverlayArgs{render, reinterpret_cast<const std::uint8_t*>(photos),
                       reinterpret_cast<const std::uint8_t*>(colors)};
}

} // namespace pyxai
