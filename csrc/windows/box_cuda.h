// Boxes as the kernels of windows take them, the device side; included by windows.cu alone.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "windows.h"

namespace pyxai::cuda {
namespace {

// What the caller was to see to: x0, y0 inside the photo, x1, y1 behind them.
__device__ inline WindowBox box_inside(const WindowBox& box, int height, int width) {
    const std::int64_t x0 = max(0ll, min(static_cast<long long>(box.x0), width - 1ll));
    const std::int64_t y0 = max(0ll, min(static_cast<long long>(box.y0), height - 1ll));
    const std::int64_t x1 = max(x0 + 1ll, min(static_cast<long long>(box.x1), 0ll + width));
    const std::int64_t y1 = max(y0 + 1ll, min(static_cast<long long>(box.y1), 0ll + height));
    return WindowBox{x0, y0, x1, y1};
}

} // namespace
} // namespace pyxai::cuda
