// Errors of the CUDA runtime as exceptions, and the device that a call works on.
#pragma once

#include <stdexcept>
#include <string>

#include <cuda_runtime_api.h>

namespace pyxai::cuda {

inline std::string describe(cudaError_t error) {
    return std::string(cudaGetErrorString(error)) + " (CUDA error " +
           std::to_string(static_cast<int>(error)) + ")";
}

inline void check(cudaError_t error, const char* what) {
    if (error != cudaSuccess) {
        cudaGetLastError(); // or the next launch would be blamed for it
        throw std::runtime_error(std::string("pyxai: ") + what + ": " + describe(error));
    }
}

inline std::string describe(dim3 size) {
    return "(" + std::to_string(size.x) + ", " + std::to_string(size.y) + ", " +
           std::to_string(size.z) + ")";
}

// Right after a launch. Sees what the launch itself reports; a fault inside the kernel appears at a
// later call, as always with CUDA.
inline void check_launch(const char* kernel, dim3 grid, dim3 block) {
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) {
        throw std::runtime_error(std::string("pyxai: launch of ") + kernel + " with grid " +
                                 describe(grid) + " and block " + describe(block) + ": " +
                                 describe(error));
    }
}

// Makes `device` current for the life of the object; touches nothing when it is current already.
class DeviceGuard {
  public:
    explicit DeviceGuard(int device) {
        check(cudaGetDevice(&previous_), "cudaGetDevice");
        changed_ = previous_ != device;
        if (changed_) {
            check(cudaSetDevice(device), "cudaSetDevice");
        }
    }
    ~DeviceGuard() {
        if (changed_) {
            cudaSetDevice(previous_); // it was current before: nothing to report from a destructor
        }
    }
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

  private:
    int previous_ = 0;
    bool changed_ = false;
};

} // namespace pyxai::cuda
