// pyxai.ops._cuda: the CUDA kernels by address. Python has checked shapes and owns all memory.
#include <cstdint>
#include <string>

#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>

#include "bind.h"
#include "cam/cam_check.h"
#include "common/cuda_check.h"
#include "mask/mask_check.h"
#include "windows/windows_check.h"

#ifndef PYXAI_CUDA_ARCHITECTURES
#define PYXAI_CUDA_ARCHITECTURES "unknown"
#endif

namespace {

using namespace pyxai;

template <class Args>
void bind_cuda(py::module_& module, const char* name, std::int64_t (*workspace)(const Args&),
               void (*run)(const Args&, void*, int, void*)) {
    bind<Args>(
        module, name,
        [workspace](const Args& args, int device, Address) {
            PYXAI_CHECK(device >= 0, "negative device");
            return workspace(args);
        },
        [run](const Args& args, void* memory, int device, Address stream) {
            run(args, memory, device, reinterpret_cast<void*>(stream));
        },
        Names<int, Address>{{"device", "stream"}});
}

// A kernel that needs no scratch memory.
template <class Args, void run(const Args&, int, void*)>
void bind_cuda(py::module_& module, const char* name) {
    bind_cuda<Args>(
        module, name, [](const Args&) { return std::int64_t{0}; },
        [](const Args& args, void*, int device, void* stream) { run(args, device, stream); });
}

using Facts = py::typing::Dict<py::str, py::object>;

Facts build_info() {
    Facts info;
    info["toolkit"] =
        std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
    info["architectures"] = PYXAI_CUDA_ARCHITECTURES;
    return info;
}

// What cudaGetDeviceCount says, in words that point at the cause: without a driver its own are
// about a driver that is too old.
py::object explain(cudaError_t error, int driver_version) {
    if (error == cudaSuccess) {
        return py::none();
    }
    if (error == cudaErrorInsufficientDriver && driver_version == 0) {
        return py::str("no NVIDIA driver");
    }
    if (error == cudaErrorNoDevice) {
        return py::str("driver present, no device");
    }
    return py::str(cudaGetErrorString(error));
}

Facts device_status() {
    int driver_version = 0, runtime_version = 0, device_count = 0;
    cudaError_t error = cudaSuccess;
    {
        const py::gil_scoped_release unlocked; // the first call may start the driver
        cudaDriverGetVersion(&driver_version);
        cudaRuntimeGetVersion(&runtime_version);
        error = cudaGetDeviceCount(&device_count);
        cudaGetLastError(); // or the next launch would be blamed for it
    }
    Facts status;
    status["driver_version"] = driver_version;
    status["runtime_version"] = runtime_version;
    status["device_count"] = error == cudaSuccess ? device_count : 0;
    status["error"] = explain(error, driver_version);
    return status;
}

} // namespace

PYBIND11_MODULE(_cuda, module) {
    module.doc() = "CUDA kernels of pyxai, by address; use pyxai.ops instead.";

    module.def("build_info", &build_info);
    module.def("device_status", &device_status);

    bind_cuda<ProjectArgs, cuda::project>(module, "cam_project");
    bind_cuda(module, "cam_render", cuda::render_workspace, cuda::render);
    bind_cuda(module, "cam_project_render", cuda::project_render_workspace, cuda::project_render);
    bind_cuda(module, "cam_overlay", cuda::overlay_workspace, cuda::overlay);
    bind_cuda<BlendArgs, cuda::blend>(module, "mask_blend");
    bind_cuda<BlendSlopesArgs, cuda::blend_slopes>(module, "mask_blend_slopes");
    bind_cuda<ShownSumArgs, cuda::sum_shown>(module, "mask_sum_shown");
    bind_cuda(module, "mask_penalty", cuda::penalty_workspace, cuda::penalty);
    bind_cuda<StepArgs, cuda::step>(module, "mask_step");
    bind_cuda(module, "mask_penalized_step", cuda::penalized_step_workspace, cuda::penalized_step);
    bind_cuda<CropArgs, cuda::crop>(module, "crop_windows");
    bind_cuda<HeatmapArgs, cuda::heatmap>(module, "window_heatmap");
}
