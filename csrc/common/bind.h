// What the arguments from Python have in common; for the binding files and the bind_args.h.
#pragma once

#include <cstdint>

namespace pyxai {

using Address = std::uintptr_t;

// Taps are 32-bit indices.
constexpr std::int64_t kLongest = std::int64_t{1} << 30;

} // namespace pyxai
