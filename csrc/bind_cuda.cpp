// pyxai.ops._cuda: the CUDA kernels by address. Python has checked shapes and owns all memory.
#include <cstdint>
#include <string>

#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cam/bind_args.h"
#include "common/cuda_check.h"
#include "mask/bind_args.h"
#include "windows/bind_args.h"

#ifndef PYXAI_CUDA_ARCHITECTURES
#define PYXAI_CUDA_ARCHITECTURES "unknown"
#endif

namespace py = pybind11;

namespace {

using pyxai::Address;
using pyxai::blend_args;
using pyxai::blend_slopes_args;
using pyxai::BlendArgs;
using pyxai::BlendStrides;
using pyxai::ChannelNumbers;
using pyxai::crop_args;
using pyxai::CropArgs;
using pyxai::heatmap_args;
using pyxai::HeatmapArgs;
using pyxai::overlay_args;
using pyxai::OverlayArgs;
using pyxai::penalized_step_args;
using pyxai::penalty_args;
using pyxai::PhotoSizes;
using pyxai::PhotoStrides;
using pyxai::project_args;
using pyxai::ProjectArgs;
using pyxai::render_args;
using pyxai::RenderArgs;
using pyxai::shown_sum_args;
using pyxai::step_args;

void* to_stream(Address stream) {
    return reinterpret_cast<void*>(stream);
}

void cam_project(Address features, int features_dtype, bool channels_last, Address weights,
                 bool weights_per_image, Address maps, std::int64_t images, std::int64_t channels,
                 std::int64_t targets, std::int64_t positions, int device, Address stream) {
    PYXAI_CHECK(device >= 0, "negative device");
    const ProjectArgs args =
        project_args(features, features_dtype, channels_last, weights, weights_per_image, maps,
                     images, channels, targets, positions);
    pyxai::cuda::project(args, device, to_stream(stream));
}

// Rendering of large maps needs scratch memory for the scaling of each.
void check_rendering(const RenderArgs& args, Address scaling, int device) {
    PYXAI_CHECK(device >= 0, "negative device");
    const bool has_output = args.count > 0 && args.height > 0 && args.width > 0;
    const bool small = args.map_height * args.map_width <= pyxai::kSmallMap;
    PYXAI_CHECK(!has_output || small || scaling != 0, "scaling is null");
}

void cam_render(Address maps, std::int64_t count, std::int64_t map_height, std::int64_t map_width,
                std::int64_t height, std::int64_t width, bool relu, bool minmax, Address out,
                bool out_uint8, Address scaling, int device, Address stream) {
    const RenderArgs args = render_args(maps, count, map_height, map_width, height, width, relu,
                                        minmax, out, out_uint8);
    check_rendering(args, scaling, device);
    pyxai::cuda::render(args, reinterpret_cast<float*>(scaling), device, to_stream(stream));
}

void cam_project_render(Address features, int features_dtype, bool channels_last, Address weights,
                        bool weights_per_image, Address maps, std::int64_t images,
                        std::int64_t channels, std::int64_t targets, std::int64_t map_height,
                        std::int64_t map_width, std::int64_t height, std::int64_t width, bool relu,
                        bool minmax, Address out, bool out_uint8, Address scaling, int device,
                        Address stream) {
    const ProjectArgs project =
        project_args(features, features_dtype, channels_last, weights, weights_per_image, maps,
                     images, channels, targets, map_height * map_width);
    const RenderArgs render = render_args(maps, images * targets, map_height, map_width, height,
                                          width, relu, minmax, out, out_uint8);
    check_rendering(render, scaling, device);
    pyxai::cuda::project_render(project, render, reinterpret_cast<float*>(scaling), device,
                                to_stream(stream));
}

void cam_overlay(Address photos, Address colors, Address maps, std::int64_t count,
                 std::int64_t map_height, std::int64_t map_width, std::int64_t height,
                 std::int64_t width, bool relu, bool minmax, Address out, Address scaling,
                 int device, Address stream) {
    const OverlayArgs args = overlay_args(
        photos, colors,
        render_args(maps, count, map_height, map_width, height, width, relu, minmax, out, true));
    check_rendering(args.render, scaling, device);
    pyxai::cuda::overlay(args, reinterpret_cast<float*>(scaling), device, to_stream(stream));
}

void mask_blend(Address images, const BlendStrides& image_strides, Address backgrounds,
                const BlendStrides& background_strides, int dtype, Address masks, Address out,
                bool channels_last, std::int64_t count, std::int64_t channels,
                std::int64_t mask_height, std::int64_t mask_width, std::int64_t height,
                std::int64_t width, int device, Address stream) {
    PYXAI_CHECK(device >= 0, "negative device");
    const BlendArgs args =
        blend_args(images, image_strides, backgrounds, background_strides, dtype, masks, out,
                   channels_last, count, channels, mask_height, mask_width, height, width);
    pyxai::cuda::blend(args, device, to_stream(stream));
}

void mask_blend_slopes(Address gradients, Address images, const BlendStrides& image_strides,
                       Address backgrounds, const BlendStrides& background_strides, int dtype,
                       Address slopes, bool channels_last, std::int64_t count,
                       std::int64_t channels, std::int64_t mask_height, std::int64_t mask_width,
                       std::int64_t height, std::int64_t width, int device, Address stream) {
    PYXAI_CHECK(device >= 0, "negative device");
    pyxai::cuda::blend_slopes(blend_slopes_args(gradients, images, image_strides, backgrounds,
                                                background_strides, dtype, slopes, channels_last,
                                                count, channels, mask_height, mask_width, height,
                                                width),
                              device, to_stream(stream));
}

void mask_sum_shown(Address gradients, int dtype, Address masks, Address out, bool channels_last,
                    std::int64_t count, std::int64_t channels, std::int64_t mask_height,
                    std::int64_t mask_width, std::int64_t height, std::int64_t width, int device,
                    Address stream) {
    PYXAI_CHECK(device >= 0, "negative device");
    pyxai::cuda::sum_shown(shown_sum_args(gradients, dtype, masks, out, channels_last, count,
                                          channels, mask_height, mask_width, height, width),
                           device, to_stream(stream));
}

bool is_small_mask(std::int64_t height, std::int64_t width) {
    return height * width <= pyxai::kSmallMask;
}

void mask_penalty(Address masks, Address costs, Address slopes, std::int64_t count,
                  std::int64_t height, std::int64_t width, float variation_weight,
                  float distance_weight, float beta, bool root, bool mean, Address partials,
                  int device, Address stream) {
    PYXAI_CHECK(device >= 0, "negative device");
    PYXAI_CHECK(count == 0 || is_small_mask(height, width) || partials != 0, "partials is null");
    pyxai::cuda::penalty(penalty_args(masks, costs, slopes, count, height, width, variation_weight,
                                      distance_weight, beta, root, mean),
                         reinterpret_cast<float*>(partials), device, to_stream(stream));
}

void mask_step(Address masks, Address gradients, Address first, Address second, std::int64_t count,
               Address step_address, std::int64_t step, double learning_rate, double beta1,
               double beta2, double eps, int device, Address stream) {
    PYXAI_CHECK(device >= 0, "negative device");
    pyxai::cuda::step(step_args(masks, gradients, first, second, count, step_address, step,
                                learning_rate, beta1, beta2, eps),
                      device, to_stream(stream));
}

void mask_penalized_step(Address masks, Address gradients, Address first, Address second,
                         Address costs, Address slopes, std::int64_t count, std::int64_t height,
                         std::int64_t width, Address step_address, std::int64_t step,
                         double learning_rate, double beta1, double beta2, double eps,
                         float variation_weight, float distance_weight, float beta, bool root,
                         bool mean, Address partials, int device, Address stream) {
    PYXAI_CHECK(device >= 0, "negative device");
    const auto args = penalized_step_args(
        masks, gradients, first, second, costs, slopes, count, height, width, step_address, step,
        learning_rate, beta1, beta2, eps, variation_weight, distance_weight, beta, root, mean);
    PYXAI_CHECK(count == 0 || is_small_mask(height, width) || (slopes != 0 && partials != 0),
                "slopes or partials is null");
    pyxai::cuda::penalized_step(args.first, args.second, reinterpret_cast<float*>(partials), device,
                                to_stream(stream));
}

void crop_windows(Address photo, int photo_dtype, const PhotoStrides& strides,
                  const PhotoSizes& sizes, Address boxes, std::int64_t count,
                  const ChannelNumbers& scale, const ChannelNumbers& shift, Address out, int dtype,
                  bool channels_last, std::int64_t height, std::int64_t width, int device,
                  Address stream) {
    PYXAI_CHECK(device >= 0, "negative device");
    const CropArgs args = crop_args(photo, photo_dtype, strides, sizes, boxes, count, scale, shift,
                                    out, dtype, channels_last, height, width);
    pyxai::cuda::crop(args, device, to_stream(stream));
}

void window_heatmap(Address scores, std::int64_t maps, Address boxes, std::int64_t count,
                    Address out, std::int64_t height, std::int64_t width, int device,
                    Address stream) {
    PYXAI_CHECK(device >= 0, "negative device");
    const HeatmapArgs args = heatmap_args(scores, maps, boxes, count, out, height, width);
    pyxai::cuda::heatmap(args, device, to_stream(stream));
}

py::dict build_info() {
    py::dict info;
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

py::dict device_status() {
    int driver_version = 0, runtime_version = 0, device_count = 0;
    cudaError_t error = cudaSuccess;
    {
        const py::gil_scoped_release unlocked; // the first call may start the driver
        cudaDriverGetVersion(&driver_version);
        cudaRuntimeGetVersion(&runtime_version);
        error = cudaGetDeviceCount(&device_count);
        cudaGetLastError(); // or the next launch would be blamed for it
    }
    py::dict status;
    status["driver_version"] = driver_version;
    status["runtime_version"] = runtime_version;
    status["device_count"] = error == cudaSuccess ? device_count : 0;
    status["error"] = explain(error, driver_version);
    return status;
}

} // namespace

PYBIND11_MODULE(_cuda, module) {
    module.doc() = "CUDA kernels of pyxai, by address; use pyxai.ops instead.";
    using Unlocked = py::call_guard<py::gil_scoped_release>;

    module.attr("SMALL_MAP") = pyxai::kSmallMap;   // cells; no scratch memory for scaling
    module.attr("SMALL_MASK") = pyxai::kSmallMask; // cells; no scratch memory for partial sums
    module.attr("PENALTY_PARTS") = pyxai::kPenaltyParts;
    module.def("build_info", &build_info);
    module.def("device_status", &device_status);
    module.def("cam_project", &cam_project, py::arg("features"), py::arg("features_dtype"),
               py::arg("channels_last"), py::arg("weights"), py::arg("weights_per_image"),
               py::arg("maps"), py::arg("images"), py::arg("channels"), py::arg("targets"),
               py::arg("positions"), py::arg("device"), py::arg("stream"), Unlocked());
    module.def("cam_render", &cam_render, py::arg("maps"), py::arg("count"), py::arg("map_height"),
               py::arg("map_width"), py::arg("height"), py::arg("width"), py::arg("relu"),
               py::arg("minmax"), py::arg("out"), py::arg("out_uint8"), py::arg("scaling"),
               py::arg("device"), py::arg("stream"), Unlocked());
    module.def("cam_project_render", &cam_project_render, py::arg("features"),
               py::arg("features_dtype"), py::arg("channels_last"), py::arg("weights"),
               py::arg("weights_per_image"), py::arg("maps"), py::arg("images"),
               py::arg("channels"), py::arg("targets"), py::arg("map_height"), py::arg("map_width"),
               py::arg("height"), py::arg("width"), py::arg("relu"), py::arg("minmax"),
               py::arg("out"), py::arg("out_uint8"), py::arg("scaling"), py::arg("device"),
               py::arg("stream"), Unlocked());
    module.def("cam_overlay", &cam_overlay, py::arg("photos"), py::arg("colors"), py::arg("maps"),
               py::arg("count"), py::arg("map_height"), py::arg("map_width"), py::arg("height"),
               py::arg("width"), py::arg("relu"), py::arg("minmax"), py::arg("out"),
               py::arg("scaling"), py::arg("device"), py::arg("stream"), Unlocked());
    module.def("mask_blend", &mask_blend, py::arg("images"), py::arg("image_strides"),
               py::arg("backgrounds"), py::arg("background_strides"), py::arg("dtype"),
               py::arg("masks"), py::arg("out"), py::arg("channels_last"), py::arg("count"),
               py::arg("channels"), py::arg("mask_height"), py::arg("mask_width"),
               py::arg("height"), py::arg("width"), py::arg("device"), py::arg("stream"),
               Unlocked());
    module.def("mask_blend_slopes", &mask_blend_slopes, py::arg("gradients"), py::arg("images"),
               py::arg("image_strides"), py::arg("backgrounds"), py::arg("background_strides"),
               py::arg("dtype"), py::arg("slopes"), py::arg("channels_last"), py::arg("count"),
               py::arg("channels"), py::arg("mask_height"), py::arg("mask_width"),
               py::arg("height"), py::arg("width"), py::arg("device"), py::arg("stream"),
               Unlocked());
    module.def("mask_sum_shown", &mask_sum_shown, py::arg("gradients"), py::arg("dtype"),
               py::arg("masks"), py::arg("out"), py::arg("channels_last"), py::arg("count"),
               py::arg("channels"), py::arg("mask_height"), py::arg("mask_width"),
               py::arg("height"), py::arg("width"), py::arg("device"), py::arg("stream"),
               Unlocked());
    module.def("mask_penalty", &mask_penalty, py::arg("masks"), py::arg("costs"), py::arg("slopes"),
               py::arg("count"), py::arg("height"), py::arg("width"), py::arg("variation_weight"),
               py::arg("distance_weight"), py::arg("beta"), py::arg("root"), py::arg("mean"),
               py::arg("partials"), py::arg("device"), py::arg("stream"), Unlocked());
    module.def("mask_step", &mask_step, py::arg("masks"), py::arg("gradients"), py::arg("first"),
               py::arg("second"), py::arg("count"), py::arg("step_address"), py::arg("step"),
               py::arg("learning_rate"), py::arg("beta1"), py::arg("beta2"), py::arg("eps"),
               py::arg("device"), py::arg("stream"), Unlocked());
    module.def("mask_penalized_step", &mask_penalized_step, py::arg("masks"), py::arg("gradients"),
               py::arg("first"), py::arg("second"), py::arg("costs"), py::arg("slopes"),
               py::arg("count"), py::arg("height"), py::arg("width"), py::arg("step_address"),
               py::arg("step"), py::arg("learning_rate"), py::arg("beta1"), py::arg("beta2"),
               py::arg("eps"), py::arg("variation_weight"), py::arg("distance_weight"),
               py::arg("beta"), py::arg("root"), py::arg("mean"), py::arg("partials"),
               py::arg("device"), py::arg("stream"), Unlocked());
    module.def("crop_windows", &crop_windows, py::arg("photo"), py::arg("photo_dtype"),
               py::arg("strides"), py::arg("sizes"), py::arg("boxes"), py::arg("count"),
               py::arg("scale"), py::arg("shift"), py::arg("out"), py::arg("dtype"),
               py::arg("channels_last"), py::arg("height"), py::arg("width"), py::arg("device"),
               py::arg("stream"), Unlocked());
    module.def("window_heatmap", &window_heatmap, py::arg("scores"), py::arg("maps"),
               py::arg("boxes"), py::arg("count"), py::arg("out"), py::arg("height"),
               py::arg("width"), py::arg("device"), py::arg("stream"), Unlocked());
}
