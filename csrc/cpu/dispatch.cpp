#include "dispatch.h"

#include <atomic>
#include <stdexcept>

#if defined(__linux__)
#include <unistd.h>
#endif

namespace pyxai::cpu {

namespace {

struct Level {
    const char* name;
    const CamKernels* cam;
    const MaskKernels* mask;
    const WindowKernels* windows;
};

// Weakest first.
const std::vector<Level>& available_levels() {
    static const std::vector<Level> levels = [] {
        std::vector<Level> found{{"baseline", &baseline::kCamKernels, &baseline::kMaskKernels,
                                  &baseline::kWindowKernels}};
#ifdef PYXAI_X86_UNITS
        __builtin_cpu_init();
        // What -march=x86-64-v3 and -v4 let the compiler use.
        const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                        __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
                        __builtin_cpu_supports("f16c");
        const bool v4 = v3 && __builtin_cpu_supports("avx512f") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
        if (v3) {
            found.push_back(
                {"avx2", &avx2::kCamKernels, &avx2::kMaskKernels, &avx2::kWindowKernels});
        }
        if (v4) {
            found.push_back(
                {"avx512", &avx512::kCamKernels, &avx512::kMaskKernels, &avx512::kWindowKernels});
        }
        if (v4 && __builtin_cpu_supports("avx512vbmi")) {
            found.push_back({"avx512vbmi", &avx512vbmi::kCamKernels, &avx512vbmi::kMaskKernels,
                             &avx512vbmi::kWindowKernels});
        }
#endif
        return found;
    }();
    return levels;
}

std::atomic<const Level*>& current_level() {
    static std::atomic<const Level*> level{&available_levels().back()};
    return level;
}

} // namespace

std::vector<std::string> simd_levels() {
    std::vector<std::string> names;
    for (const Level& level : available_levels()) {
        names.emplace_back(level.name);
    }
    return names;
}

std::string simd_level() {
    return current_level().load()->name;
}

void set_simd_level(const std::string& name) {
    std::string known;
    for (const Level& level : available_levels()) {
        if (name == level.name) {
            current_level().store(&level);
            return;
        }
        known += known.empty() ? level.name : std::string(", ") + level.name;
    }
    throw std::invalid_argument("SIMD level: expected one of " + known +
                                " (on this machine), got '" + name + "'");
}

const CamKernels& cam_kernels() {
    return *current_level().load()->cam;
}

const MaskKernels& mask_kernels() {
    return *current_level().load()->mask;
}

const WindowKernels& window_kernels() {
    return *current_level().load()->windows;
}

std::int64_t last_level_cache_bytes() {
    // Virtual machines report the sum over a whole host, and the cache is shared: an output larger
    // than this finds its place taken by what ran before.
    constexpr std::int64_t kLargest = std::int64_t{8} << 20;
    static const std::int64_t bytes = [] {
        long found = 0;
#if defined(_SC_LEVEL3_CACHE_SIZE)
        found = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
        return found > 0 && found < kLargest ? static_cast<std::int64_t>(found) : kLargest;
    }();
    return bytes;
}

} // namespace pyxai::cpu
