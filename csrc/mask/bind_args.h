// Addresses and sizes from Python as arguments of the mask kernels; shared by both binding files.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "../common/bind.h"
#include "../common/check.h"
#include "mask.h"

namespace pyxai {

// Between images, channels, rows, columns.
using BlendStrides = std::array<std::int64_t, 4>;

inline BlendSource blend_source(const char* name, Address data, int dtype,
                                const BlendStrides& strides) {
    check_aligned(name, data, element_bytes(static_cast<DType>(dtype)));
    for (const std::int64_t stride : strides) {
        PYXAI_CHECK(stride >= 0, "negative stride");
    }
    return BlendSource{reinterpret_cast<const void*>(data), strides[0], strides[1], strides[2],
                       strides[3]};
}

inline void check_blend_sizes(int dtype, std::int64_t count, std::int64_t channels,
                              std::int64_t mask_height, std::int64_t mask_width,
                              std::int64_t height, std::int64_t width) {
    PYXAI_CHECK(dtype >= 0 && dtype <= 2, "unknown images dtype");
    check_sizes("images", {count, channels, height, width});
    check_sizes("masks", {count, mask_height, mask_width});
    PYXAI_CHECK(mask_height < kLongest && mask_width < kLongest && height < kLongest &&
                    width < kLongest && channels < kLongest,
                "masks or images: too long");
    const bool has_output = count > 0 && channels > 0 && height > 0 && width > 0;
    PYXAI_CHECK(!has_output || (mask_height > 0 && mask_width > 0), "empty mask");
}

inline BlendArgs blend_args(Address images, const BlendStrides& image_strides, Address backgrounds,
                            const BlendStrides& background_strides, int dtype, Address masks,
                            Address out, bool channels_last, std::int64_t count,
                            std::int64_t channels, std::int64_t mask_height,
                            std::int64_t mask_width, std::int64_t height, std::int64_t width) {
    check_blend_sizes(dtype, count, channels, mask_height, mask_width, height, width);
    const bool has_output = count > 0 && channels > 0 && height > 0 && width > 0;
    PYXAI_CHECK(!has_output || (images != 0 && masks != 0 && out != 0),
                "images, masks or out is null");
    check_aligned("masks", masks, sizeof(float));
    check_aligned("out", out, element_bytes(static_cast<DType>(dtype)));
    return BlendArgs{blend_source("images", images, dtype, image_strides),
                     blend_source("background", backgrounds, dtype, background_strides),
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

inline BlendSlopesArgs blend_slopes_args(Address gradients, Address images,
                                         const BlendStrides& image_strides, Address backgrounds,
                                         const BlendStrides& background_strides, int dtype,
                                         Address slopes, bool channels_last, std::int64_t count,
                                         std::int64_t channels, std::int64_t mask_height,
                                         std::int64_t mask_width, std::int64_t height,
                                         std::int64_t width) {
    check_blend_sizes(dtype, count, channels, mask_height, mask_width, height, width);
    const bool has_input = count > 0 && channels > 0 && height > 0 && width > 0;
    PYXAI_CHECK(!has_input || (gradients != 0 && images != 0), "gradients or images is null");
    PYXAI_CHECK(slopes != 0 || count * mask_height * mask_width == 0, "slopes is null");
    check_aligned("gradients", gradients, element_bytes(static_cast<DType>(dtype)));
    check_aligned("slopes", slopes, sizeof(float));
    const BlendArgs blend{blend_source("images", images, dtype, image_strides),
                          blend_source("background", backgrounds, dtype, background_strides),
                          static_cast<DType>(dtype),
                          nullptr,
                          nullptr,
                          channels_last,
                          count,
                          channels,
                          mask_height,
                          mask_width,
                          height,
                          width};
    return BlendSlopesArgs{blend, reinterpret_cast<const void*>(gradients),
                           reinterpret_cast<float*>(slopes)};
}

inline ShownSumArgs shown_sum_args(Address gradients, int dtype, Address masks, Address out,
                                   bool channels_last, std::int64_t count, std::int64_t channels,
                                   std::int64_t mask_height, std::int64_t mask_width,
                                   std::int64_t height, std::int64_t width) {
    check_blend_sizes(dtype, count, channels, mask_height, mask_width, height, width);
    const bool has_output = channels > 0 && height > 0 && width > 0;
    PYXAI_CHECK(!has_output || (mask_height > 0 && mask_width > 0), "empty mask");
    PYXAI_CHECK(!has_output || out != 0, "out is null");
    PYXAI_CHECK(!has_output || count == 0 || (gradients != 0 && masks != 0),
                "gradients or masks is null");
    check_aligned("gradients", gradients, element_bytes(static_cast<DType>(dtype)));
    check_aligned("masks", masks, sizeof(float));
    check_aligned("out", out, element_bytes(static_cast<DType>(dtype)));
    const BlendArgs blend{BlendSource{},
                          BlendSource{},
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
    return ShownSumArgs{blend, reinterpret_cast<const void*>(gradients)};
}

inline PenaltyArgs penalty_args(Address masks, Address costs, Address slopes, std::int64_t count,
                                std::int64_t height, std::int64_t width, float variation_weight,
                                float distance_weight, float beta, bool root, bool mean) {
    check_sizes("masks", {count, height, width});
    PYXAI_CHECK(height < kLongest && width < kLongest, "masks: too long");
    PYXAI_CHECK(count == 0 || costs != 0, "costs is null");
    PYXAI_CHECK(count * height * width == 0 || masks != 0, "masks is null");
    check_aligned("masks", masks, sizeof(float));
    check_aligned("costs", costs, sizeof(float));
    check_aligned("slopes", slopes, sizeof(float));
    return PenaltyArgs{reinterpret_cast<const float*>(masks),
                       reinterpret_cast<float*>(costs),
                       reinterpret_cast<float*>(slopes),
                       count,
                       height,
                       width,
                       variation_weight,
                       distance_weight,
                       beta,
                       root,
                       mean};
}

// `step_address` is 0 where the step is the number `step`.
inline StepArgs step_args(Address masks, Address gradients, Address first, Address second,
                          std::int64_t count, Address step_address, std::int64_t step,
                          double learning_rate, double beta1, double beta2, double eps) {
    check_sizes("masks", {count});
    PYXAI_CHECK(count == 0 || (masks != 0 && gradients != 0 && first != 0 && second != 0),
                "masks, gradients or moments are null");
    check_aligned("masks", masks, sizeof(float));
    check_aligned("gradients", gradients, sizeof(float));
    check_aligned("first_moment", first, sizeof(float));
    check_aligned("second_moment", second, sizeof(float));
    check_aligned("step", step_address, sizeof(std::int64_t));
    return StepArgs{reinterpret_cast<float*>(masks),
                    reinterpret_cast<const float*>(gradients),
                    reinterpret_cast<float*>(first),
                    reinterpret_cast<float*>(second),
                    count,
                    reinterpret_cast<const std::int64_t*>(step_address),
                    step,
                    learning_rate,
                    beta1,
                    beta2,
                    eps};
}

// The slopes are scratch memory.
inline std::pair<PenaltyArgs, StepArgs>
penalized_step_args(Address masks, Address gradients, Address first, Address second, Address costs,
                    Address slopes, std::int64_t count, std::int64_t height, std::int64_t width,
                    Address step_address, std::int64_t step, double learning_rate, double beta1,
                    double beta2, double eps, float variation_weight, float distance_weight,
                    float beta, bool root, bool mean) {
    const PenaltyArgs penalty = penalty_args(masks, costs, slopes, count, height, width,
                                             variation_weight, distance_weight, beta, root, mean);
    return {penalty, step_args(masks, gradients, first, second, count * height * width,
                               step_address, step, learning_rate, beta1, beta2, eps)};
}

} // namespace pyxai
