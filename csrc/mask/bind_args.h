// Addresses and sizes from Python as arguments of the mask kernels; shared by both binding files.
#pragma once

#include <array>
#include <cstdint>

#include "../common/bind.h"
#include "../common/check.h"
#include "mask.h"

namespace pyxai {

// Between images, channels, rows, columns.
using BlendStrides = std::array<std::int64_t, 4>;

inline BlendSource blend_source(Address data, const BlendStrides& strides) {
    for (const std::int64_t stride : strides) {
        PYXAI_CHECK(stride >= 0, "negative stride");
    }
    return BlendSource{reinterpret_cast<const void*>(data), strides[0], strides[1], strides[2],
                       strides[3]};
}

inline BlendArgs blend_args(Address images, const BlendStrides& image_strides, Address backgrounds,
                            const BlendStrides& background_strides, int dtype, Address masks,
                            Address out, bool channels_last, std::int64_t count,
                            std::int64_t channels, std::int64_t mask_height,
                            std::int64_t mask_width, std::int64_t height, std::int64_t width) {
    PYXAI_CHECK(dtype >= 0 && dtype <= 2, "unknown images dtype");
    PYXAI_CHECK(count >= 0 && channels >= 0 && mask_height >= 0 && mask_width >= 0 && height >= 0 &&
                    width >= 0,
                "negative size");
    PYXAI_CHECK(mask_height < kLongest && mask_width < kLongest && height < kLongest &&
                    width < kLongest && channels < kLongest,
                "mask or image too long");
    const bool has_output = count > 0 && channels > 0 && height > 0 && width > 0;
    PYXAI_CHECK(!has_output || (mask_height > 0 && mask_width > 0), "empty mask");
    PYXAI_CHECK(!has_output || (images != 0 && masks != 0 && out != 0),
                "images, masks or out is null");
    return BlendArgs{blend_source(images, image_strides),
                     blend_source(backgrounds, background_strides),
                     static_cast<DType>(dtype),
                     reinterpret_cast<const float*>(masks),
                     reinterpret_cast<void*>(out),
                     channels_last,
                     count,
                     channels,
                     mask_height,
                     mask_width,
                     height,
                     width};
}

} // namespace pyxai
