// Which instruction set the kernels run with, chosen at run time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../cam/cam_kernels.h"
#include "../mask/mask_kernels.h"
#include "../windows/windows_kernels.h"

namespace pyxai::cpu {

// Names of the levels that were compiled in and that this processor has, weakest first.
std::vector<std::string> simd_levels();

// The level in use; at first the strongest one.
std::string simd_level();

// Throws std::invalid_argument for a level that simd_levels() does not list. Process-wide.
void set_simd_level(const std::string& name);

const CamKernels& cam_kernels();
const MaskKernels& mask_kernels();
const WindowKernels& window_kernels();

// Outputs larger than this are written past the cache.
std::int64_t last_level_cache_bytes();

} // namespace pyxai::cpu
