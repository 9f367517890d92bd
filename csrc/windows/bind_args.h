// Addresses and sizes from Python as arguments of the window kernels; shared by both binding files.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "../common/bind.h"
#include "../common/check.h"
#include "windows.h"

namespace pyxai {

// Between channels, rows, columns; sizes: channels, height, width.
using PhotoStrides = std::array<std::int64_t, 3>;
using PhotoSizes = std::array<std::int64_t, 3>;
using ChannelNumbers = std::vector<float>;

// One more than the dtypes of common/dtype.h.
constexpr int kBytes = 3;

// Points into `scale` and `shift`.
inline CropArgs crop_args(Address photo, int photo_dtype, const PhotoStrides& strides,
                          const PhotoSizes& sizes, Address boxes, std::int64_t count,
                          const ChannelNumbers& scale, const ChannelNumbers& shift, Address out,
                          int dtype, bool channels_last, std::int64_t height, std::int64_t width) {
    PYXAI_CHECK(photo_dtype >= 0 && photo_dtype <= kBytes, "unknown photo dtype");
    PYXAI_CHECK(dtype >= 0 && dtype <= 2, "unknown dtype");
    for (const std::int64_t stride : strides) {
        PYXAI_CHECK(stride >= 0, "negative stride");
    }
    const auto [channels, photo_height, photo_width] = sizes;
    PYXAI_CHECK(channels > 0 && photo_height > 0 && photo_width > 0, "empty photo");
    check_sizes("photo", {channels, photo_height, photo_width});
    check_sizes("boxes", {count, 4});
    check_sizes("size or out", {count, channels, height, width});
    PYXAI_CHECK(count == 0 || (height > 0 && width > 0), "empty windows");
    PYXAI_CHECK(channels < kLongest && photo_height < kLongest &&
                    photo_width < kLongest / channels && height < kLongest &&
                    width < kLongest / channels,
                "photo or size: too wide or high");
    PYXAI_CHECK(scale.size() == static_cast<std::size_t>(channels) && shift.size() == scale.size(),
                "not one scale and shift for each channel");
    PYXAI_CHECK(count == 0 || (photo != 0 && boxes != 0 && out != 0),
                "photo, boxes or out is null");
    const bool bytes = photo_dtype == kBytes;
    check_aligned("photo", photo, bytes ? 1 : element_bytes(static_cast<DType>(photo_dtype)));
    check_aligned("boxes", boxes, sizeof(std::int64_t));
    check_aligned("out", out, element_bytes(static_cast<DType>(dtype)));
    return CropArgs{WindowPhoto{reinterpret_cast<const void*>(photo), bytes,
                                bytes ? DType::kFloat32 : static_cast<DType>(photo_dtype),
                                strides[0], strides[1], strides[2]},
                    channels,
                    photo_height,
                    photo_width,
                    reinterpret_cast<const WindowBox*>(boxes),
                    count,
                    scale.data(),
                    shift.data(),
                    reinterpret_cast<void*>(out),
                    static_cast<DType>(dtype),
                    channels_last,
                    height,
                    width};
}

inline HeatmapArgs heatmap_args(Address scores, std::int64_t maps, Address boxes,
                                std::int64_t count, Address out, std::int64_t height,
                                std::int64_t width) {
    check_sizes("scores", {maps, count});
    check_sizes("boxes", {count, 4});
    check_sizes("size or out", {maps, height, width});
    PYXAI_CHECK(height > 0 && width > 0 && height < kLongest && width < kLongest,
                "size: empty, or too wide or high");
    PYXAI_CHECK(count < kLongest, "too many boxes");
    PYXAI_CHECK(maps == 0 || out != 0, "out is null");
    PYXAI_CHECK(maps == 0 || count == 0 || (scores != 0 && boxes != 0), "scores or boxes is null");
    check_aligned("scores", scores, sizeof(float));
    check_aligned("boxes", boxes, sizeof(std::int64_t));
    check_aligned("out", out, sizeof(float));
    return HeatmapArgs{reinterpret_cast<const float*>(scores),
                       maps,
                       reinterpret_cast<const WindowBox*>(boxes),
                       count,
                       reinterpret_cast<float*>(out),
                       height,
                       width};
}

} // namespace pyxai
