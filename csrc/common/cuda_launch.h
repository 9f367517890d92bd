// Grids and launches, and the tiles of kernels that write pictures; included by the CUDA units
// alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include <cuda_runtime.h>

#include "check.h"
#include "cuda_check.h"
#include "element_cuda.h"

namespace pyxai::cuda {
namespace {

std::int64_t ceil_divide(std::int64_t size, std::int64_t part) {
    return (size + part - 1) / part;
}

// CUDA limits y and z to 65535; the kernels loop over what is beyond.
dim3 make_grid(std::int64_t x, std::int64_t y, std::int64_t z) {
    constexpr std::int64_t limit = 65535;
    PYXAI_CHECK(x <= std::numeric_limits<int>::max(), "too many blocks for one launch");
    return dim3(static_cast<unsigned>(x), static_cast<unsigned>(std::min(y, limit)),
                static_cast<unsigned>(std::min(z, limit)));
}

bool is_aligned(const void* address, std::size_t bytes) {
    return reinterpret_cast<std::uintptr_t>(address) % bytes == 0;
}

// `cluster` neighbours along x make a cluster: they run at once, and can wait for each other.
template <class... Params, class... Values>
void launch_clusters(const char* name, void (*kernel)(Params...), dim3 grid, dim3 block,
                     int cluster, void* stream, const Values&... values) {
    // Not <<<>>>: this way the units are C++, which the tests also compile for the host.
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.stream = static_cast<cudaStream_t>(stream);
    cudaLaunchAttribute attribute{};
    if (cluster > 1) {
        attribute.id = cudaLaunchAttributeClusterDimension;
        attribute.val.clusterDim.x = static_cast<unsigned>(cluster);
        attribute.val.clusterDim.y = 1;
        attribute.val.clusterDim.z = 1;
        config.attrs = &attribute;
        config.numAttrs = 1;
    }
    cudaLaunchKernelEx(&config, kernel, values...); // its error is also the last one
    check_launch(name, grid, block);
}

template <class... Params, class... Values>
void launch(const char* name, void (*kernel)(Params...), dim3 grid, dim3 block, void* stream,
            const Values&... values) {
    launch_clusters(name, kernel, grid, block, 1, stream, values...);
}

constexpr int kMaxCluster = 8; // blocks that every device with clusters can run at once

// Whether the device has clusters, and the code of the kernel for it is not from older PTX.
bool knows_clusters(const void* kernel, int device) {
    constexpr int first = 9; // compute capability
    int major = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
          "cudaDeviceGetAttribute");
    cudaFuncAttributes attributes{};
    if (major >= first) {
        check(cudaFuncGetAttributes(&attributes, kernel), "cudaFuncGetAttributes");
    }
    return attributes.ptxVersion >= 10 * first;
}

// ---- pictures: blocks of kWarp x kRowThreads threads ----

constexpr int kWarp = 32;
constexpr int kPixels = 4; // of a thread in each of its rows
constexpr int kRowThreads = 4;
constexpr int kBlockColumns = kWarp * kPixels;

// Where the pixels of a thread lie in the source rows.
struct Columns {
    int low[kPixels], high[kPixels];
    float weight[kPixels]; // of `high`
};

// With `vectors` four neighbours, always all of them; otherwise `count` elements that lie a warp
// apart, so that a warp still writes neighbours.
template <DType type, bool vectors>
__device__ inline void write_elements(typename Element<type>::Storage* out, int count,
                                      const float (&values)[kPixels]) {
    using E = Element<type>;
    if constexpr (vectors) {
        write_four(out, E::narrow(values[0]), E::narrow(values[1]), E::narrow(values[2]),
                   E::narrow(values[3]));
    } else {
#pragma unroll
        for (int i = 0; i < kPixels; ++i) {
            if (i < count) {
                out[i * kWarp] = E::narrow(values[i]);
            }
        }
    }
}

// Neighbouring rows that a thread writes: more reuse source rows, fewer make more blocks.
inline int rows_of_a_thread(std::int64_t column_tiles, std::int64_t height, std::int64_t count,
                            int most = 8) {
    constexpr std::int64_t enough_blocks = 2048; // keep the largest devices busy
    int rows = 1;
    while (rows < most &&
           column_tiles * ceil_divide(height, kRowThreads * 2 * rows) * count >= enough_blocks) {
        rows *= 2;
    }
    return rows;
}

} // namespace
} // namespace pyxai::cuda
