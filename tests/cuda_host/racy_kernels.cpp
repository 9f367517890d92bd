// Kernels with and without races, to see that races are found; in the build that watches alone.
#include <cstring>
#include <stdexcept>
#include <vector>

#include "cuda_runtime.h"

namespace {

__global__ void neighbours(float* out, bool waits) {
    __shared__ float values[64];
    values[threadIdx.x] = static_cast<float>(threadIdx.x);
    if (waits) {
        __syncthreads();
    }
    out[threadIdx.x] = values[(threadIdx.x + 32) % 64];
}

// The barrier between reading and the next writing is what people forget.
__global__ void again(float* out, bool waits) {
    __shared__ float values[64];
    for (int round = 0; round < 2; ++round) {
        values[threadIdx.x] = static_cast<float>(round);
        __syncthreads();
        out[threadIdx.x] += values[63 - threadIdx.x];
        if (waits) {
            __syncthreads();
        }
    }
}

__global__ void one_place(float* out, bool atomic) {
    if (threadIdx.x == 0) {
        if (atomic) {
            atomicAdd(out, 1.0f);
        } else {
            *out = 1.0f;
        }
    }
}

__global__ void exchange(float* out, bool waits) {
    out[2 + blockIdx.x * 64 + threadIdx.x] = 1.0f;
    if (waits) {
        __cluster_barrier_arrive();
        __cluster_barrier_wait();
    }
    if (threadIdx.x == 0) {
        out[blockIdx.x] = out[2 + (1 - blockIdx.x) * 64];
    }
}

} // namespace

// Writes what is said of a kernel, or nothing, into `said`.
extern "C" __attribute__((visibility("default"))) void cuda_host_try(int kernel, bool sound,
                                                                     char* said, std::size_t room) {
    void (*const kernels[])(float*, bool) = {neighbours, again, one_place, exchange};
    std::vector<float> memory(256);
    const unsigned blocks = kernel < 2 ? 1 : 2, cluster = kernel == 3 ? 2 : 1;
    said[0] = 0;
    try {
        cuda_host::run(dim3(blocks), dim3(64), cluster,
                       [&] { kernels[kernel](memory.data(), sound); });
    } catch (const std::runtime_error& error) {
        std::strncpy(said, error.what(), room - 1);
    }
}
