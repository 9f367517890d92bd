// What would make the window kernels leave their memory; both binding files ask before each call.
#pragma once

#include <cstdint>

#include "../common/check_args.h"
#include "windows.h"

namespace pyxai {

inline void check(const CropArgs& args) {
    const WindowPhoto& photo = args.photo;
    const std::int64_t channels = args.channels;
    check_dtype("photo", photo.dtype);
    check_dtype("dtype", args.dtype);
    PYXAI_CHECK(photo.channel_stride >= 0 && photo.row_stride >= 0 && photo.column_stride >= 0,
                "photo: negative stride");
    PYXAI_CHECK(channels > 0 && args.photo_height > 0 && args.photo_width > 0, "empty photo");
    check_sizes("photo", {channels, args.photo_height, args.photo_width});
    check_sizes("boxes", {args.count, 4});
    check_sizes("size or out", {args.count, channels, args.height, args.width});
    PYXAI_CHECK(args.count == 0 || (args.height > 0 && args.width > 0), "empty windows");
    PYXAI_CHECK(channels < kLongest && args.photo_height < kLongest &&
                    args.photo_width < kLongest / channels && args.height < kLongest &&
                    args.width < kLongest / channels,
                "photo or size: too wide or high");
    PYXAI_CHECK(args.scale != nullptr && args.shift != nullptr, "scale or shift is null");
    PYXAI_CHECK(args.count == 0 ||
                    (photo.data != nullptr && args.boxes != nullptr && args.out != nullptr),
                "photo, boxes or out is null");
    check_aligned("photo", photo.data, photo.bytes ? 1 : element_bytes(photo.dtype));
    check_aligned("boxes", args.boxes, sizeof(std::int64_t));
    check_aligned("scale", args.scale, sizeof(float));
    check_aligned("shift", args.shift, sizeof(float));
    check_aligned("out", args.out, element_bytes(args.dtype));
}

inline void check(const HeatmapArgs& args) {
    check_sizes("scores", {args.maps, args.count});
    check_sizes("boxes", {args.count, 4});
    check_sizes("size or out", {args.maps, args.height, args.width});
    PYXAI_CHECK(args.height > 0 && args.width > 0 && args.height < kLongest &&
                    args.width < kLongest,
                "size: empty, or too wide or high");
    PYXAI_CHECK(args.count < kLongest, "too many boxes");
    PYXAI_CHECK(args.maps == 0 || args.out != nullptr, "out is null");
    PYXAI_CHECK(args.maps == 0 || args.count == 0 ||
                    (args.scores != nullptr && args.boxes != nullptr),
                "scores or boxes is null");
    check_aligned("scores", args.scores, sizeof(float));
    check_aligned("boxes", args.boxes, sizeof(std::int64_t));
    check_aligned("out", args.out, sizeof(float));
}

} // namespace pyxai
