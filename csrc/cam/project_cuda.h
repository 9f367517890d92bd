// Projection of features on class weights, the device side; included by cam.cu alone.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "../common/element_cuda.h"
#include "cam.h"

namespace pyxai::cuda {
namespace {

// Four channels from `p` on, `stride` elements apart. With `whole` all four exist, and where they
// are neighbours they are also aligned for one vector load; otherwise those beyond `left` count as
// zero.
template <DType type, bool neighbours, bool whole>
__device__ inline float4 read_channels(const typename Element<type>::Storage* p,
                                       std::int64_t stride, int left) {
    using E = Element<type>;
    if constexpr (neighbours && whole) {
        const auto four = read_four(p);
        return make_float4(E::widen(four.x), E::widen(four.y), E::widen(four.z), E::widen(four.w));
    } else {
        float values[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            values[i] = whole || i < left ? E::widen(__ldg(p + i * stride)) : 0.0f;
        }
        return make_float4(values[0], values[1], values[2], values[3]);
    }
}

// ---- project ----

struct ProjectParams {
    const void* features;
    const float* weights;
    float* maps; // [N, T, P]
    std::int64_t images, channels, targets, positions;
    std::int64_t weights_stride; // between images; 0 when they share the weights
    // Of project_few_kernel alone:
    int tile_shift;    // log2 of the positions of a block
    int segment_shift; // log2 of the parts that the channels are cut into
    bool whole;        // see read_channels
};

constexpr int kFewTargets = 8; // more of them go to the tiled product
constexpr int kFewThreads = 512;
constexpr int kMaxTileShift = 5;
constexpr int kMinTileShift = 3;
constexpr int kMaxSegmentShift = 6;

// The segment's share of the sum over channels, for each of `rows` <= kTargets rows of weights.
// Channels go to segments in groups of four, in turn.
template <DType type, bool channels_last, int kTargets, bool whole>
__device__ inline void
sum_segment(const ProjectParams& params, const typename Element<type>::Storage* features,
            const float* weights, int rows, int segment, float (&sums)[kTargets]) {
    const std::int64_t stride = channels_last ? 1 : params.positions;
    const int step = 4 << params.segment_shift;
    const std::int64_t advance = step * stride;
    features += 4 * segment * stride;
    weights += 4 * segment;
    // Enough independent loads in flight to hide their latency.
#pragma unroll(!whole ? 1 : kTargets == 1 ? 4 : 2)
    for (int left = static_cast<int>(params.channels) - 4 * segment; left > 0; left -= step) {
        const float4 f = read_channels<type, channels_last, whole>(features, stride, left);
#pragma unroll
        for (int t = 0; t < kTargets; ++t) {
            const float* row = weights + t * params.channels;
            const float4 w = t == 0 || t < rows
                                 ? read_channels<DType::kFloat32, true, whole>(row, 1, left)
                                 : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            sums[t] = fmaf(w.x, f.x, sums[t]);
            sums[t] = fmaf(w.y, f.y, sums[t]);
            sums[t] = fmaf(w.z, f.z, sums[t]);
            sums[t] = fmaf(w.w, f.w, sums[t]);
        }
        features += advance;
        weights += step;
    }
}

constexpr int kPartialPitch = (1 << kMaxTileShift) + 1; // keeps banks apart

// A tile of positions of one image on `rows` <= kTargets targets, by a block of kFewThreads, which
// waits. Its threads cut the channels into segments, so that one small image still fills many
// warps. `partial` has room for [kTargets << kMaxSegmentShift][kPartialPitch].
template <DType type, bool channels_last, int kTargets>
__device__ inline void project_few(const ProjectParams& params, float (*partial)[kPartialPitch],
                                   std::int64_t image, std::int64_t first_target, int rows,
                                   std::int64_t first_position) {
    using Storage = typename Element<type>::Storage;
    const int tile = 1 << params.tile_shift;
    const int segments = 1 << params.segment_shift;
    const Storage* features =
        static_cast<const Storage*>(params.features) + image * params.channels * params.positions;
    const float* weights =
        params.weights + image * params.weights_stride + first_target * params.channels;
    for (int item = threadIdx.x; item < tile << params.segment_shift; item += kFewThreads) {
        // Neighbouring threads read neighbouring addresses.
        const int segment = channels_last ? item & (segments - 1) : item >> params.tile_shift;
        const int offset = channels_last ? item >> params.segment_shift : item & (tile - 1);
        const std::int64_t position = first_position + offset;
        float sums[kTargets] = {};
        if (position < params.positions) {
            const Storage* start = features + position * (channels_last ? params.channels : 1);
            if (params.whole) {
                sum_segment<type, channels_last, kTargets, true>(params, start, weights, rows,
                                                                 segment, sums);
            } else {
                sum_segment<type, channels_last, kTargets, false>(params, start, weights, rows,
                                                                  segment, sums);
            }
        }
#pragma unroll
        for (int t = 0; t < kTargets; ++t) {
            partial[(t << params.segment_shift) + segment][offset] = sums[t];
        }
    }
    __syncthreads();
    const int offset = threadIdx.x & (tile - 1);
    const int t = threadIdx.x >> params.tile_shift;
    const std::int64_t position = first_position + offset;
    const std::int64_t target = first_target + t;
    if (t < rows && position < params.positions) {
        float sum = 0.0f;
#pragma unroll 8
        for (int segment = 0; segment < segments; ++segment) {
            sum += partial[(t << params.segment_shift) + segment][offset];
        }
        params.maps[(image * params.targets + target) * params.positions + position] = sum;
    }
    __syncthreads();
}

// Bound by reading the features. grid: (tiles of positions, targets / kTargets, N). The 1 keeps the
// compiler from spilling registers for the sake of occupancy.
template <DType type, bool channels_last, int kTargets>
__global__ void __launch_bounds__(kFewThreads, 1) project_few_kernel(const ProjectParams params) {
    __shared__ float partial[kTargets << kMaxSegmentShift][kPartialPitch];
    const std::int64_t first_target = static_cast<std::int64_t>(blockIdx.y) * kTargets;
    const int rows =
        static_cast<int>(min(params.targets - first_target, static_cast<std::int64_t>(kTargets)));
    for (std::int64_t image = blockIdx.z; image < params.images; image += gridDim.z) {
        project_few<type, channels_last, kTargets>(params, partial, image, first_target, rows,
                                                   static_cast<std::int64_t>(blockIdx.x)
                                                       << params.tile_shift);
    }
}

constexpr int kTile = 32;  // targets of a block
constexpr int kDepth = 16; // channels of a step
constexpr int kGroups = 4; // of threads, which take the steps in turn: few blocks, yet many warps

// For tiles of so many positions: narrow ones make more blocks. The sums are the same.
template <int positions> struct Tiles {
    static constexpr int kAcross = positions / 4; // threads; each has 4 targets and 4 positions
    static constexpr int kGroupThreads = kTile / 4 * kAcross;
    static constexpr int kThreads = kGroups * kGroupThreads;
    // Keeps float4 loads aligned, and most banks apart.
    static constexpr int kWeightsPitch = kTile + 4;
    static constexpr int kFeaturesPitch = positions + 4;
    static constexpr int kGroupMemory = kDepth * (kWeightsPitch + kFeaturesPitch);
    static_assert(kTile * positions <= kGroupMemory, "partial sums fit");
};

// One operand's [kDepth, width] tiles of a group of `threads`, on their way from global to shared
// memory: columns are targets or positions. With `along` channels are neighbours in memory
// (weights, and features when channels_last), otherwise columns are.
template <DType type, bool along, int width, int threads> struct Fetch {
    using Storage = typename Element<type>::Storage;
    static constexpr int kFetched = width * kDepth / threads; // elements of a thread
    // They lie this far apart in the tile, columns or channels.
    static constexpr int kStep = threads / (along ? kDepth : width);

    const Storage* next;   // first element of the step to come
    std::int64_t distance; // between its elements in memory
    std::int64_t advance;  // from step to step
    std::int64_t channels; // left, from the first element on
    std::int64_t columns;  // likewise
    float values[kFetched];

    __device__ Fetch(const Storage* matrix, std::int64_t first_column, std::int64_t all_columns,
                     std::int64_t first_channel, std::int64_t all_channels, int thread) {
        const std::int64_t column = first_column + column_of(thread);
        const std::int64_t channel = first_channel + channel_of(thread);
        const std::int64_t pitch = along ? all_channels : all_columns;
        next = matrix + (along ? column * pitch + channel : channel * pitch + column);
        distance = kStep * pitch;
        advance = kGroups * kDepth * (along ? 1 : pitch);
        channels = all_channels - channel;
        columns = all_columns - column;
    }

    // Place of a thread's first element within the tile.
    static __device__ int column_of(int thread) {
        return along ? thread / kDepth : thread % width;
    }
    static __device__ int channel_of(int thread) {
        return along ? thread % kDepth : thread / width;
    }

    // Elements outside the matrix count as zero.
    __device__ void load() {
#pragma unroll
        for (int i = 0; i < kFetched; ++i) {
            const bool exists =
                along ? channels > 0 && columns > i * kStep : columns > 0 && channels > i * kStep;
            values[i] = exists ? Element<type>::widen(__ldg(next + i * distance)) : 0.0f;
        }
        next += advance;
        channels -= kGroups * kDepth;
    }

    __device__ void store(float* tile, int pitch, int thread) const {
        float* first = tile + channel_of(thread) * pitch + column_of(thread);
#pragma unroll
        for (int i = 0; i < kFetched; ++i) {
            first[i * kStep * (along ? 1 : pitch)] = values[i];
        }
    }
};

// sums[4 targets][4 positions] of a thread += one step's tiles.
template <int positions>
__device__ inline void multiply_tiles(const float* weights, const float* features, int thread,
                                      float (&sums)[4][4]) {
    using T = Tiles<positions>;
    const float* rows = weights + 4 * (thread / T::kAcross);
    const float* columns = features + 4 * (thread % T::kAcross);
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
        const float4 w4 = *reinterpret_cast<const float4*>(rows + k * T::kWeightsPitch);
        const float4 f4 = *reinterpret_cast<const float4*>(columns + k * T::kFeaturesPitch);
        const float w[4] = {w4.x, w4.y, w4.z, w4.w};
        const float f[4] = {f4.x, f4.y, f4.z, f4.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                sums[i][j] = fmaf(w[i], f[j], sums[i][j]);
            }
        }
    }
}

// Adds the groups' sums in their order and writes the tile that is there.
template <int positions>
__device__ inline void write_tile(const ProjectParams& params, float* memory, std::int64_t image,
                                  std::int64_t first_target, std::int64_t first_position,
                                  const float (&sums)[4][4]) {
    using T = Tiles<positions>;
    constexpr int size = kTile * positions;
    const int group = threadIdx.x / T::kGroupThreads;
    const int thread = threadIdx.x % T::kGroupThreads;
    float* mine = memory + group * size + 4 * (thread % T::kAcross);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        *reinterpret_cast<float4*>(mine + (4 * (thread / T::kAcross) + i) * positions) =
            make_float4(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
    }
    __syncthreads();
    for (int item = threadIdx.x; item < size; item += T::kThreads) {
        const std::int64_t target = first_target + item / positions;
        const std::int64_t position = first_position + item % positions;
        float sum = memory[item];
#pragma unroll
        for (int g = 1; g < kGroups; ++g) {
            sum += memory[g * size + item];
        }
        if (target < params.targets && position < params.positions) {
            params.maps[(image * params.targets + target) * params.positions + position] = sum;
        }
    }
    __syncthreads();
}

// One tile of one image's product weights [T, C] x features [C, P]; the next step's tiles are on
// their way while this step's are multiplied.
template <DType type, bool channels_last, int positions>
__device__ inline void project_tile(const ProjectParams& params, float* memory, std::int64_t image,
                                    std::int64_t first_target, std::int64_t first_position) {
    using T = Tiles<positions>;
    const std::int64_t channels = params.channels;
    const auto* features = static_cast<const typename Element<type>::Storage*>(params.features) +
                           image * channels * params.positions;
    const float* weights = params.weights + image * params.weights_stride;
    const int group = threadIdx.x / T::kGroupThreads;
    const int thread = threadIdx.x % T::kGroupThreads;
    float* weights_tile = memory + group * T::kGroupMemory;
    float* features_tile = weights_tile + kDepth * T::kWeightsPitch;

    Fetch<DType::kFloat32, true, kTile, T::kGroupThreads> w(weights, first_target, params.targets,
                                                            group * kDepth, channels, thread);
    Fetch<type, channels_last, positions, T::kGroupThreads> f(
        features, first_position, params.positions, group * kDepth, channels, thread);
    float sums[4][4] = {};
    w.load();
    f.load();
    for (std::int64_t step = 0; step < channels; step += kGroups * kDepth) {
        w.store(weights_tile, T::kWeightsPitch, thread);
        f.store(features_tile, T::kFeaturesPitch, thread);
        __syncthreads();
        w.load();
        f.load();
        multiply_tiles<positions>(weights_tile, features_tile, thread, sums);
        __syncthreads();
    }
    write_tile<positions>(params, memory, image, first_target, first_position, sums);
}

// grid: (tiles of positions, tiles of targets, N).
template <DType type, bool channels_last, int positions>
__global__ void __launch_bounds__(Tiles<positions>::kThreads, 2)
    project_many_kernel(const ProjectParams params) {
    __shared__ __align__(16) float memory[kGroups * Tiles<positions>::kGroupMemory];
    const std::int64_t first_position = static_cast<std::int64_t>(blockIdx.x) * positions;
    for (std::int64_t image = blockIdx.z; image < params.images; image += gridDim.z) {
        for (std::int64_t target = std::int64_t{kTile} * blockIdx.y; target < params.targets;
             target += std::int64_t{kTile} * gridDim.y) {
            project_tile<type, channels_last, positions>(params, memory, image, target,
                                                         first_position);
        }
    }
}

} // namespace
} // namespace pyxai::cuda
