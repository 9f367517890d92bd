// What would make the mask kernels leave their memory; both binding files ask before each call.
#pragma once

#include <cstdint>

#include "../common/check_args.h"
#include "mask.h"

namespace pyxai {

inline void check(const char* name, const BlendSource& source, DType dtype) {
    check_aligned(name, source.data, element_bytes(dtype));
    PYXAI_CHECK(source.image_stride >= 0 && source.channel_stride >= 0 && source.row_stride >= 0 &&
                    source.column_stride >= 0,
                std::string(name) + ": negative stride");
}

inline bool has_pixels(const BlendArgs& args) {
    return args.channels > 0 && args.height > 0 && args.width > 0;
}

// Those of the masks and `out` are the kernel's own affair: not all have them.
inline void check_shared(const BlendArgs& args) {
    check_dtype("images", args.dtype);
    check_sizes("images", {args.count, args.channels, args.height, args.width});
    check_sizes("masks", {args.count, args.mask_height, args.mask_width});
    PYXAI_CHECK(args.mask_height < kLongest && args.mask_width < kLongest &&
                    args.height < kLongest && args.width < kLongest && args.channels < kLongest,
                "masks or images: too long");
    PYXAI_CHECK(args.count == 0 || !has_pixels(args) ||
                    (args.mask_height > 0 && args.mask_width > 0),
                "empty mask");
    check("images", args.images, args.dtype);
    check("background", args.backgrounds, args.dtype);
    check_aligned("masks", args.masks, sizeof(float));
    check_aligned("out", args.out, element_bytes(args.dtype));
}

inline void check(const BlendArgs& args) {
    check_shared(args);
    PYXAI_CHECK(args.count == 0 || !has_pixels(args) ||
                    (args.images.data != nullptr && args.masks != nullptr && args.out != nullptr),
                "images, masks or out is null");
}

inline void check(const BlendSlopesArgs& args) {
    const BlendArgs& blend = args.blend;
    check_shared(blend);
    PYXAI_CHECK(blend.count == 0 || !has_pixels(blend) ||
                    (args.gradients != nullptr && blend.images.data != nullptr),
                "gradients or images is null");
    PYXAI_CHECK(args.slopes != nullptr || blend.count * blend.mask_height * blend.mask_width == 0,
                "slopes is null");
    check_aligned("gradients", args.gradients, element_bytes(blend.dtype));
    check_aligned("slopes", args.slopes, sizeof(float));
}

inline void check(const ShownSumArgs& args) {
    const BlendArgs& blend = args.blend;
    check_shared(blend);
    PYXAI_CHECK(!has_pixels(blend) || (blend.mask_height > 0 && blend.mask_width > 0),
                "empty mask");
    PYXAI_CHECK(!has_pixels(blend) || blend.out != nullptr, "out is null");
    PYXAI_CHECK(!has_pixels(blend) || blend.count == 0 ||
                    (args.gradients != nullptr && blend.masks != nullptr),
                "gradients or masks is null");
    check_aligned("gradients", args.gradients, element_bytes(blend.dtype));
}

inline void check(const PenaltyArgs& args) {
    check_sizes("masks", {args.count, args.height, args.width});
    PYXAI_CHECK(args.height < kLongest && args.width < kLongest, "masks: too long");
    PYXAI_CHECK(args.count == 0 || args.costs != nullptr, "costs is null");
    PYXAI_CHECK(args.count * args.height * args.width == 0 || args.masks != nullptr,
                "masks is null");
    check_aligned("masks", args.masks, sizeof(float));
    check_aligned("costs", args.costs, sizeof(float));
    check_aligned("slopes", args.slopes, sizeof(float));
}

inline void check(const StepArgs& args) {
    check_sizes("masks", {args.count});
    PYXAI_CHECK(args.count == 0 || (args.masks != nullptr && args.gradients != nullptr &&
                                    args.first != nullptr && args.second != nullptr),
                "masks, gradients or moments are null");
    check_aligned("masks", args.masks, sizeof(float));
    check_aligned("gradients", args.gradients, sizeof(float));
    check_aligned("first_moment", args.first, sizeof(float));
    check_aligned("second_moment", args.second, sizeof(float));
    check_aligned("step", args.step_address, sizeof(std::int64_t));
}

inline void check(const PenalizedStepArgs& args) {
    const PenaltyArgs& penalty = args.penalty;
    check(penalty);
    check(args.step);
    PYXAI_CHECK(penalty.masks == args.step.masks &&
                    penalty.count * penalty.height * penalty.width == args.step.count,
                "masks: not those of the penalty");
    PYXAI_CHECK(penalty.slopes == nullptr, "slopes: they are scratch memory");
}

} // namespace pyxai
