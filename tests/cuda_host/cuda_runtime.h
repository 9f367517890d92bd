// The CUDA built-ins that pyxai's kernels use, for an ordinary C++ compiler: tests only.
//
// A launch runs its blocks one after another in a shuffled order, and the threads of a block as
// fibres, so that barriers and shuffles work in divergent control flow. The blocks of a cluster
// take turns at its barriers, and shared memory does not survive these here. It is filled with NaN
// patterns before each block. What CUDA leaves undefined (lanes missing from a shuffle, threads at
// different barriers) is an error here. Not modelled: true concurrency, the memory
// model, and the limits of registers and shared memory.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#if CUDA_HOST_TRAFFIC // so that each access is seen to be of a kernel
#define __device__ __attribute__((always_inline))
#else
#define __device__
#endif
#define __host__
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))
// The build moves these to a section of their own, to be filled anew for each block. (GCC ignores
// the attribute for it within templates.)
#define __shared__ static

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace cuda_host {

void begin_vector();
void end_vector();

// As long as it lives, the accesses to memory are parts of one.
struct OneAccess {
    OneAccess() {
        begin_vector();
    }
    ~OneAccess() {
        end_vector();
    }
};

// Four numbers, aligned as on the device, so that the sanitizer sees a misaligned vector load.
template <class T> struct alignas(4 * sizeof(T)) Four {
    T x, y, z, w;
    Four(T x_, T y_, T z_, T w_) : x(x_), y(y_), z(z_), w(w_) {}
#if CUDA_HOST_TRAFFIC
    Four(const Four& from) {
        *this = from;
    }
    Four& operator=(const Four& from) {
        const OneAccess one;
        x = from.x;
        y = from.y;
        z = from.z;
        w = from.w;
        return *this;
    }
#endif
};

} // namespace cuda_host

using float4 = cuda_host::Four<float>;
using ushort4 = cuda_host::Four<unsigned short>;

inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}

inline ushort4 make_ushort4(unsigned short x, unsigned short y, unsigned short z,
                            unsigned short w) {
    return {x, y, z, w};
}

// ---- of the thread that runs ----

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace cuda_host {

int sync_block(int line, int predicate);
std::uint64_t shuffle(unsigned mask, int source_lane, std::uint64_t value);
int lane();
void sync_cluster(bool arrive);
void begin_atomic();
void end_atomic();
void run(dim3 grid, dim3 block, unsigned cluster, const std::function<void()>& kernel);

template <class T> T shuffle_as(unsigned mask, int source_lane, T value) {
    static_assert(sizeof(T) <= sizeof(std::uint64_t), "shuffles move at most 8 bytes");
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    bits = shuffle(mask, source_lane, bits);
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

} // namespace cuda_host

inline void __syncthreads(int line = __builtin_LINE()) {
    cuda_host::sync_block(line, 1);
}

inline int __syncthreads_and(int predicate, int line = __builtin_LINE()) {
    return cuda_host::sync_block(line, predicate);
}

// The two halves of one barrier; nothing but the wait may follow an arrival here.
inline void __cluster_barrier_arrive() {
    cuda_host::sync_cluster(true);
}

inline void __cluster_barrier_wait() {
    cuda_host::sync_cluster(false);
}

template <class T> T __shfl_sync(unsigned mask, T value, int source) {
    return cuda_host::shuffle_as(mask, source & 31, value);
}

template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits) {
    return cuda_host::shuffle_as(mask, cuda_host::lane() ^ bits, value);
}

template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned step) {
    const int lane = cuda_host::lane(), source = lane - static_cast<int>(step);
    return cuda_host::shuffle_as(mask, source < 0 ? lane : source, value);
}

template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned step) {
    const int lane = cuda_host::lane(), source = lane + static_cast<int>(step);
    return cuda_host::shuffle_as(mask, source > 31 ? lane : source, value);
}

// Threads take turns, so a plain sum is atomic.
template <class T> T atomicAdd(T* to, T value) {
    cuda_host::begin_atomic();
    const T before = *to;
    *to += value;
    cuda_host::end_atomic();
    return before;
}

inline unsigned atomicOr(unsigned* to, unsigned value) {
    cuda_host::begin_atomic();
    const unsigned before = *to;
    *to |= value;
    cuda_host::end_atomic();
    return before;
}

template <class T> T __ldg(const T* from) {
    return *from;
}

// ---- arithmetic ----

template <class T> T min(T a, T b) {
    return b < a ? b : a;
}

template <class T> T max(T a, T b) {
    return a < b ? b : a;
}

inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float __fmul_rn(float a, float b) {
    return a * b;
}

inline long long __double2ll_rn(double value) {
    return std::llrint(value);
}

using std::isfinite;
using std::isinf;
using std::isnan;

inline float rcbrtf(float value) {
    return 1.0f / std::cbrt(value);
}

inline float rsqrtf(float value) {
    return 1.0f / std::sqrt(value);
}

// ---- the runtime ----

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
};

using cudaStream_t = void*;

#define CUDART_VERSION 0

enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension = 4 };

struct cudaLaunchAttribute {
    cudaLaunchAttributeID id;
    struct {
        struct {
            unsigned x, y, z;
        } clusterDim;
    } val;
};

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    std::size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute* attrs;
    unsigned numAttrs;
};

template <class... Params, class... Values>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...),
                               Values&&... values) {
    const unsigned cluster = config->numAttrs == 0 ? 1 : config->attrs->val.clusterDim.x;
    const auto body = [&] { kernel(values...); };
    cuda_host::run(config->gridDim, config->blockDim, cluster, std::ref(body));
    return cudaSuccess;
}

enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor = 75 };

struct cudaFuncAttributes {
    int ptxVersion;
};

// Of a device with all that the kernels use, and code for it.
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
    *value = 9;
    return cudaSuccess;
}

inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
    attributes->ptxVersion = 90;
    return cudaSuccess;
}

inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) {
    std::memset(to, value, bytes);
    return cudaSuccess;
}

inline const char* cudaGetErrorString(cudaError_t) {
    return "an error of CUDA on the host";
}

inline cudaError_t cudaGetLastError() {
    return cudaSuccess;
}

inline cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}

inline cudaError_t cudaSetDevice(int) {
    return cudaSuccess;
}

inline cudaError_t cudaDriverGetVersion(int* version) {
    *version = 0;
    return cudaSuccess;
}

inline cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = 0;
    return cudaSuccess;
}

inline cudaError_t cudaGetDeviceCount(int* count) {
    *count = 1;
    return cudaSuccess;
}
