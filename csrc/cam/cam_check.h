// What would make the CAM kernels leave their memory; both binding files ask before each call.
#pragma once

#include <cstdint>

#include "../common/check_args.h"
#include "cam.h"

namespace pyxai {

inline void check(const ProjectArgs& args) {
    check_dtype("features", args.features_dtype);
    check_sizes("features", {args.images, args.channels, args.positions});
    check_sizes("weights", {args.weights_per_image ? args.images : 1, args.targets, args.channels});
    check_sizes("maps of the features", {args.images, args.targets, args.positions});
    check_aligned("features", args.features, element_bytes(args.features_dtype));
    check_aligned("weights", args.weights, sizeof(float));
    check_aligned("maps", args.maps, sizeof(float));
    const bool has_output = args.images > 0 && args.targets > 0 && args.positions > 0;
    PYXAI_CHECK(!has_output || args.maps != nullptr, "maps is null");
    PYXAI_CHECK(!has_output || args.channels == 0 ||
                    (args.features != nullptr && args.weights != nullptr),
                "features or weights is null");
}

inline void check(const RenderArgs& args) {
    check_sizes("maps", {args.count, args.map_height, args.map_width});
    check_sizes("photos or out", {args.count, args.height, args.width});
    PYXAI_CHECK(args.map_height < kLongest && args.map_width < kLongest && args.height < kLongest &&
                    args.width < kLongest,
                "maps, photos or size: too long");
    const bool has_output = args.count > 0 && args.height > 0 && args.width > 0;
    PYXAI_CHECK(!has_output || (args.map_height > 0 && args.map_width > 0), "empty map");
    PYXAI_CHECK(!has_output || (args.maps != nullptr && args.out != nullptr),
                "maps or out is null");
    check_aligned("maps", args.maps, sizeof(float));
    check_aligned("out", args.out, args.out_uint8 ? 1 : sizeof(float));
}

inline void check(const ProjectRenderArgs& args) {
    check(args.project);
    check(args.render);
    PYXAI_CHECK(args.render.maps == args.project.maps, "maps: not those of the projection");
    PYXAI_CHECK(args.render.count == args.project.images * args.project.targets &&
                    args.render.map_height * args.render.map_width == args.project.positions,
                "maps: not the sizes of the projection");
}

inline void check(const OverlayArgs& args) {
    check(args.render);
    PYXAI_CHECK(args.render.out_uint8, "out: not bytes");
    const bool has_output =
        args.render.count > 0 && args.render.height > 0 && args.render.width > 0;
    PYXAI_CHECK(!has_output || (args.photos != nullptr && args.colors != nullptr),
                "photos or colors is null");
}

} // namespace pyxai
