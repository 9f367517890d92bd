// Element types of the tensors that Python passes by address.
#pragma once

namespace pyxai {

// The numbers are part of the binding: pyxai/ops/_native.py holds the same table.
enum class DType : int { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2 };

} // namespace pyxai
