// Projection and rendering in one launch, the device side; included by cam.cu alone.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "../common/cuda_launch.h"
#include "project_cuda.h"
#include "render_cuda.h"

namespace pyxai::cuda {
namespace {

// Waits for the blocks of the cluster; what they wrote is there for all of them then. A block alone
// needs no device that knows clusters.
__device__ inline void wait_for_cluster() {
    if (gridDim.x == 1) {
        __syncthreads();
        return;
    }
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    __cluster_barrier_arrive();
    __cluster_barrier_wait();
#else
    __trap(); // the host launches no such cluster
#endif
}

// For one target and maps of at most kSmallMap cells, pictures of whole vectors. The blocks of a
// cluster share one image: each projects some tiles of positions, then renders some rows of the map
// that all of them made. The sums are those of project_few_kernel, the pixels those of
// render_kernel. grid: (blocks of a cluster, 1, N).
template <DType type, bool channels_last, Picture picture>
__global__ void __launch_bounds__(kFewThreads, 1)
    project_render_kernel(const ProjectParams project, const RenderParams render) {
    __shared__ float partial[1 << kMaxSegmentShift][kPartialPitch];
    __shared__ float cells[kSmallMap];
    constexpr int row_threads = kFewThreads / kWarp;
    const int lane = threadIdx.x % kWarp, row_thread = threadIdx.x / kWarp;
    const std::int64_t tile = std::int64_t{1} << project.tile_shift;
    // Warps lie across the picture first, so that their threads have many neighbouring rows, which
    // share rows of the map.
    const int tiles = (render.width + kBlockColumns - 1) / kBlockColumns;
    const int across = min(tiles, row_threads), down = row_threads / across;
    const int parts = static_cast<int>(gridDim.x) * down;
    const int part = static_cast<int>(blockIdx.x) * down + row_thread / across;
    const bool idle = row_thread >= across * down;
    const int begin = static_cast<int>(std::int64_t{render.height} * part / parts);
    const int end = idle ? 0 : static_cast<int>(std::int64_t{render.height} * (part + 1) / parts);
    for (std::int64_t image = blockIdx.z; image < project.images; image += gridDim.z) {
        for (std::int64_t first = blockIdx.x * tile; first < project.positions;
             first += gridDim.x * tile) {
            project_few<type, channels_last, 1>(project, partial, image, 0, 1, first);
        }
        wait_for_cluster();
        load_small_map<picture>(render, image, cells, static_cast<int>(threadIdx.x), kFewThreads);
        const Map<true> map{cells, {0.0f, 1.0f}, render.relu};
        for (int x = row_thread % across * kBlockColumns + lane * kPixels; x < render.width;
             x += across * kBlockColumns) {
            render_rows<picture, true>(render, map, nullptr, render_columns<true>(render, x), image,
                                       x, begin, end);
        }
    }
}

} // namespace
} // namespace pyxai::cuda
