// Source positions of bilinear resizing, as in torch's interpolate(align_corners=False,
// antialias=False): shared by the CPU and the CUDA kernels so that both agree with it.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define PYXAI_HOST_DEVICE __host__ __device__
#else
#define PYXAI_HOST_DEVICE
#endif

namespace pyxai {

struct Tap {
    std::int32_t low;  // nearest source index at or before the position
    std::int32_t high; // the next one, or the same at the border
    float weight;      // of `high`; `low` has the rest
};

// `scale` is source size / target size in float32, as torch computes it.
static inline PYXAI_HOST_DEVICE Tap bilinear_tap(std::int64_t target_index,
                                                 std::int64_t source_size, float scale) {
    float position = scale * (static_cast<float>(target_index) + 0.5f) - 0.5f;
    position = position < 0.0f ? 0.0f : position;
    const std::int32_t last = static_cast<std::int32_t>(source_size) - 1;
    std::int32_t low = static_cast<std::int32_t>(position);
    low = low > last ? last : low;
    const std::int32_t high = low < last ? low + 1 : last;
    float weight = position - static_cast<float>(low);
    weight = weight > 1.0f ? 1.0f : weight;
    return Tap{low, high, weight};
}

} // namespace pyxai
