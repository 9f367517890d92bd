// Element types of the tensors that Python passes by address.
#pragma once

#include <cstdint>

namespace pyxai {

// The numbers are part of the binding: pyxai/ops/_native.py holds the same table.
enum class DType : int { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2 };

static inline std::int64_t element_bytes(DType dtype) {
    return dtype == DType::kFloat32 ? 4 : 2;
}

} // namespace pyxai
