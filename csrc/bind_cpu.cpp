// pyxai.ops._cpu: the CPU kernels by address. Python has checked shapes and owns all memory.
#include <cstdint>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cam/bind_args.h"
#include "cpu/dispatch.h"
#include "mask/bind_args.h"
#include "windows/bind_args.h"

namespace py = pybind11;

namespace {

using pyxai::Address;
using pyxai::blend_args;
using pyxai::blend_slopes_args;
using pyxai::BlendArgs;
using pyxai::BlendSlopesArgs;
using pyxai::BlendStrides;
using pyxai::ChannelNumbers;
using pyxai::crop_args;
using pyxai::CropArgs;
using pyxai::heatmap_args;
using pyxai::HeatmapArgs;
using pyxai::overlay_args;
using pyxai::OverlayArgs;
using pyxai::penalty_args;
using pyxai::PenaltyArgs;
using pyxai::PhotoSizes;
using pyxai::PhotoStrides;
using pyxai::project_args;
using pyxai::ProjectArgs;
using pyxai::render_args;
using pyxai::RenderArgs;
using pyxai::shown_sum_args;
using pyxai::ShownSumArgs;
using pyxai::step_args;
using pyxai::WindowBox;

constexpr Address kAlignment = 64;

// Scratch memory that Python owns. Every kernel returns 0, or, before it has done anything, how
// many bytes it needs: so the common call, whose memory suffices, costs one crossing.
class Workspace {
  public:
    Workspace(Address memory, std::int64_t bytes, int num_threads)
        : memory(reinterpret_cast<void*>(memory)), bytes_(bytes) {
        PYXAI_CHECK(memory % kAlignment == 0, "workspace not aligned to 64 bytes");
        PYXAI_CHECK(bytes == 0 || memory != 0, "workspace is null");
        PYXAI_CHECK(num_threads > 0, "no threads");
    }

    bool is_too_small(std::int64_t needed) const {
        return needed > bytes_;
    }

    void* const memory;

  private:
    const std::int64_t bytes_;
};

// Boxes that are not inside a photo of this size would make the kernels leave their memory.
void check_boxes(const WindowBox* boxes, std::int64_t count, std::int64_t height,
                 std::int64_t width) {
    PYXAI_CHECK(pyxai::cpu::survey_boxes(boxes, count, height, width).first_bad < 0,
                "box empty or not inside the photo");
}

} // namespace

PYBIND11_MODULE(_cpu, module) {
    module.doc() = "CPU kernels of pyxai, by address; use pyxai.ops instead.";
    const py::call_guard<py::gil_scoped_release> unlocked;

    module.def("simd_levels", &pyxai::cpu::simd_levels);
    module.def("simd_level", &pyxai::cpu::simd_level);
    module.def("set_simd_level", &pyxai::cpu::set_simd_level, py::arg("name"));

    module.def(
        "cam_project",
        [](Address features, int dtype, bool channels_last, Address weights, bool weights_per_image,
           Address maps, std::int64_t images, std::int64_t channels, std::int64_t targets,
           std::int64_t positions, Address workspace, std::int64_t workspace_bytes,
           int num_threads) -> std::int64_t {
            const ProjectArgs args =
                project_args(features, dtype, channels_last, weights, weights_per_image, maps,
                             images, channels, targets, positions);
            const Workspace scratch(workspace, workspace_bytes, num_threads);
            const std::int64_t needed = pyxai::cpu::project_workspace(args, num_threads);
            if (scratch.is_too_small(needed)) {
                return needed;
            }
            pyxai::cpu::project(args, scratch.memory, num_threads);
            return 0;
        },
        py::arg("features"), py::arg("dtype"), py::arg("channels_last"), py::arg("weights"),
        py::arg("weights_per_image"), py::arg("maps"), py::arg("images"), py::arg("channels"),
        py::arg("targets"), py::arg("positions"), py::arg("workspace"), py::arg("workspace_bytes"),
        py::arg("num_threads"), unlocked);

    module.def(
        "cam_render",
        [](Address maps, std::int64_t count, std::int64_t map_height, std::int64_t map_width,
           std::int64_t height, std::int64_t width, bool relu, bool minmax, Address out,
           bool out_uint8, Address workspace, std::int64_t workspace_bytes,
           int num_threads) -> std::int64_t {
            const RenderArgs args = render_args(maps, count, map_height, map_width, height, width,
                                                relu, minmax, out, out_uint8);
            const Workspace scratch(workspace, workspace_bytes, num_threads);
            const std::int64_t needed = pyxai::cpu::render_workspace(args, num_threads);
            if (scratch.is_too_small(needed)) {
                return needed;
            }
            pyxai::cpu::render(args, scratch.memory, num_threads);
            return 0;
        },
        py::arg("maps"), py::arg("count"), py::arg("map_height"), py::arg("map_width"),
        py::arg("height"), py::arg("width"), py::arg("relu"), py::arg("minmax"), py::arg("out"),
        py::arg("out_uint8"), py::arg("workspace"), py::arg("workspace_bytes"),
        py::arg("num_threads"), unlocked);

    module.def(
        "cam_project_render",
        [](Address features, int dtype, bool channels_last, Address weights, bool weights_per_image,
           Address maps, std::int64_t images, std::int64_t channels, std::int64_t targets,
           std::int64_t map_height, std::int64_t map_width, std::int64_t height, std::int64_t width,
           bool relu, bool minmax, Address out, bool out_uint8, Address workspace,
           std::int64_t workspace_bytes, int num_threads) -> std::int64_t {
            const ProjectArgs projection =
                project_args(features, dtype, channels_last, weights, weights_per_image, maps,
                             images, channels, targets, map_height * map_width);
            const RenderArgs rendering = render_args(maps, images * targets, map_height, map_width,
                                                     height, width, relu, minmax, out, out_uint8);
            const Workspace scratch(workspace, workspace_bytes, num_threads);
            const std::int64_t needed = pyxai::cpu::project_workspace(projection, num_threads) +
                                        pyxai::cpu::render_workspace(rendering, num_threads);
            if (scratch.is_too_small(needed)) {
                return needed;
            }
            pyxai::cpu::project_render(projection, rendering, scratch.memory, num_threads);
            return 0;
        },
        py::arg("features"), py::arg("dtype"), py::arg("channels_last"), py::arg("weights"),
        py::arg("weights_per_image"), py::arg("maps"), py::arg("images"), py::arg("channels"),
        py::arg("targets"), py::arg("map_height"), py::arg("map_width"), py::arg("height"),
        py::arg("width"), py::arg("relu"), py::arg("minmax"), py::arg("out"), py::arg("out_uint8"),
        py::arg("workspace"), py::arg("workspace_bytes"), py::arg("num_threads"), unlocked);

    module.def(
        "cam_overlay",
        [](Address photos, Address colors, Address maps, std::int64_t count,
           std::int64_t map_height, std::int64_t map_width, std::int64_t height, std::int64_t width,
           bool relu, bool minmax, Address out, Address workspace, std::int64_t workspace_bytes,
           int num_threads) -> std::int64_t {
            const OverlayArgs args =
                overlay_args(photos, colors,
                             render_args(maps, count, map_height, map_width, height, width, relu,
                                         minmax, out, true));
            const Workspace scratch(workspace, workspace_bytes, num_threads);
            const std::int64_t needed = pyxai::cpu::render_workspace(args.render, num_threads);
            if (scratch.is_too_small(needed)) {
                return needed;
            }
            pyxai::cpu::overlay(args, scratch.memory, num_threads);
            return 0;
        },
        py::arg("photos"), py::arg("colors"), py::arg("maps"), py::arg("count"),
        py::arg("map_height"), py::arg("map_width"), py::arg("height"), py::arg("width"),
        py::arg("relu"), py::arg("minmax"), py::arg("out"), py::arg("workspace"),
        py::arg("workspace_bytes"), py::arg("num_threads"), unlocked);

    module.def(
        "mask_blend",
        [](Address images, const BlendStrides& image_strides, Address backgrounds,
           const BlendStrides& background_strides, int dtype, Address masks, Address out,
           bool channels_last, std::int64_t count, std::int64_t channels, std::int64_t mask_height,
           std::int64_t mask_width, std::int64_t height, std::int64_t width, Address workspace,
           std::int64_t workspace_bytes, int num_threads) -> std::int64_t {
            const BlendArgs args = blend_args(
                images, image_strides, backgrounds, background_strides, dtype, masks, out,
                channels_last, count, channels, mask_height, mask_width, height, width);
            const Workspace scratch(workspace, workspace_bytes, num_threads);
            const std::int64_t needed = pyxai::cpu::blend_workspace(args, num_threads);
            if (scratch.is_too_small(needed)) {
                return needed;
            }
            pyxai::cpu::blend(args, scratch.memory, num_threads);
            return 0;
        },
        py::arg("images"), py::arg("image_strides"), py::arg("backgrounds"),
        py::arg("background_strides"), py::arg("dtype"), py::arg("masks"), py::arg("out"),
        py::arg("channels_last"), py::arg("count"), py::arg("channels"), py::arg("mask_height"),
        py::arg("mask_width"), py::arg("height"), py::arg("width"), py::arg("workspace"),
        py::arg("workspace_bytes"), py::arg("num_threads"), unlocked);

    module.def(
        "mask_blend_slopes",
        [](Address gradients, Address images, const BlendStrides& image_strides,
           Address backgrounds, const BlendStrides& background_strides, int dtype, Address slopes,
           bool channels_last, std::int64_t count, std::int64_t channels, std::int64_t mask_height,
           std::int64_t mask_width, std::int64_t height, std::int64_t width, Address workspace,
           std::int64_t workspace_bytes, int num_threads) -> std::int64_t {
            const BlendSlopesArgs args = blend_slopes_args(
                gradients, images, image_strides, backgrounds, background_strides, dtype, slopes,
                channels_last, count, channels, mask_height, mask_width, height, width);
            const Workspace scratch(workspace, workspace_bytes, num_threads);
            const std::int64_t needed = pyxai::cpu::blend_slopes_workspace(args, num_threads);
            if (scratch.is_too_small(needed)) {
                return needed;
            }
            pyxai::cpu::blend_slopes(args, scratch.memory, num_threads);
            return 0;
        },
        py::arg("gradients"), py::arg("images"), py::arg("image_strides"), py::arg("backgrounds"),
        py::arg("background_strides"), py::arg("dtype"), py::arg("slopes"),
        py::arg("channels_last"), py::arg("count"), py::arg("channels"), py::arg("mask_height"),
        py::arg("mask_width"), py::arg("height"), py::arg("width"), py::arg("workspace"),
        py::arg("workspace_bytes"), py::arg("num_threads"), unlocked);

    module.def(
        "mask_sum_shown",
        [](Address gradients, int dtype, Address masks, Address out, bool channels_last,
           std::int64_t count, std::int64_t channels, std::int64_t mask_height,
           std::int64_t mask_width, std::int64_t height, std::int64_t width, Address workspace,
           std::int64_t workspace_bytes, int num_threads) -> std::int64_t {
            const ShownSumArgs args =
                shown_sum_args(gradients, dtype, masks, out, channels_last, count, channels,
                               mask_height, mask_width, height, width);
            const Workspace scratch(workspace, workspace_bytes, num_threads);
            const std::int64_t needed = pyxai::cpu::sum_shown_workspace(args, num_threads);
            if (scratch.is_too_small(needed)) {
                return needed;
            }
            pyxai::cpu::sum_shown(args, scratch.memory, num_threads);
            return 0;
        },
        py::arg("gradients"), py::arg("dtype"), py::arg("masks"), py::arg("out"),
        py::arg("channels_last"), py::arg("count"), py::arg("channels"), py::arg("mask_height"),
        py::arg("mask_width"), py::arg("height"), py::arg("width"), py::arg("workspace"),
        py::arg("workspace_bytes"), py::arg("num_threads"), unlocked);

    module.def(
        "mask_penalty",
        [](Address masks, Address costs, Address slopes, std::int64_t count, std::int64_t height,
           std::int64_t width, float variation_weight, float distance_weight, float beta, bool root,
           bool mean, Address workspace, std::int64_t workspace_bytes,
           int num_threads) -> std::int64_t {
            const PenaltyArgs args =
                penalty_args(masks, costs, slopes, count, height, width, variation_weight,
                             distance_weight, beta, root, mean);
            const Workspace scratch(workspace, workspace_bytes, num_threads);
            const std::int64_t needed = pyxai::cpu::penalty_workspace(args, num_threads);
            if (scratch.is_too_small(needed)) {
                return needed;
            }
            pyxai::cpu::penalty(args, scratch.memory, num_threads);
            return 0;
        },
        py::arg("masks"), py::arg("costs"), py::arg("slopes"), py::arg("count"), py::arg("height"),
        py::arg("width"), py::arg("variation_weight"), py::arg("distance_weight"), py::arg("beta"),
        py::arg("root"), py::arg("mean"), py::arg("workspace"), py::arg("workspace_bytes"),
        py::arg("num_threads"), unlocked);

    module.def(
        "mask_step",
        [](Address masks, Address gradients, Address first, Address second, std::int64_t count,
           Address step_address, std::int64_t step, double learning_rate, double beta1,
           double beta2, double eps, int num_threads) {
            PYXAI_CHECK(num_threads > 0, "no threads");
            pyxai::cpu::step(step_args(masks, gradients, first, second, count, step_address, step,
                                       learning_rate, beta1, beta2, eps),
                             num_threads);
        },
        py::arg("masks"), py::arg("gradients"), py::arg("first"), py::arg("second"),
        py::arg("count"), py::arg("step_address"), py::arg("step"), py::arg("learning_rate"),
        py::arg("beta1"), py::arg("beta2"), py::arg("eps"), py::arg("num_threads"), unlocked);

    module.def(
        "mask_penalized_step",
        [](Address masks, Address gradients, Address first, Address second, Address costs,
           Address slopes, std::int64_t count, std::int64_t height, std::int64_t width,
           Address step_address, std::int64_t step, double learning_rate, double beta1,
           double beta2, double eps, float variation_weight, float distance_weight, float beta,
           bool root, bool mean, Address workspace, std::int64_t workspace_bytes,
           int num_threads) -> std::int64_t {
            const auto args = pyxai::penalized_step_args(
                masks, gradients, first, second, costs, slopes, count, height, width, step_address,
                step, learning_rate, beta1, beta2, eps, variation_weight, distance_weight, beta,
                root, mean);
            PYXAI_CHECK(slopes != 0 || count * height * width == 0, "slopes is null");
            const Workspace scratch(workspace, workspace_bytes, num_threads);
            const std::int64_t needed = pyxai::cpu::penalty_workspace(args.first, num_threads);
            if (scratch.is_too_small(needed)) {
                return needed;
            }
            pyxai::cpu::penalized_step(args.first, args.second, scratch.memory, num_threads);
            return 0;
        },
        py::arg("masks"), py::arg("gradients"), py::arg("first"), py::arg("second"),
        py::arg("costs"), py::arg("slopes"), py::arg("count"), py::arg("height"), py::arg("width"),
        py::arg("step_address"), py::arg("step"), py::arg("learning_rate"), py::arg("beta1"),
        py::arg("beta2"), py::arg("eps"), py::arg("variation_weight"), py::arg("distance_weight"),
        py::arg("beta"), py::arg("root"), py::arg("mean"), py::arg("workspace"),
        py::arg("workspace_bytes"), py::arg("num_threads"), unlocked);

    module.def(
        "survey_boxes",
        [](Address boxes, std::int64_t count, std::int64_t height, std::int64_t width) {
            pyxai::check_sizes("boxes", {count, 4});
            pyxai::check_aligned("boxes", boxes, sizeof(std::int64_t));
            PYXAI_CHECK(count == 0 || boxes != 0, "boxes is null");
            const pyxai::cpu::BoxSurvey survey = pyxai::cpu::survey_boxes(
                reinterpret_cast<const WindowBox*>(boxes), count, height, width);
            return std::array<std::int64_t, 3>{survey.first_bad, survey.height, survey.width};
        },
        py::arg("boxes"), py::arg("count"), py::arg("height"), py::arg("width"));

    module.def(
        "crop_windows",
        [](Address photo, int photo_dtype, const PhotoStrides& strides, const PhotoSizes& sizes,
           Address boxes, std::int64_t count, const ChannelNumbers& scale,
           const ChannelNumbers& shift, Address out, int dtype, bool channels_last,
           std::int64_t height, std::int64_t width, Address workspace, std::int64_t workspace_bytes,
           int num_threads) -> std::int64_t {
            const CropArgs args = crop_args(photo, photo_dtype, strides, sizes, boxes, count, scale,
                                            shift, out, dtype, channels_last, height, width);
            check_boxes(args.boxes, count, args.photo_height, args.photo_width);
            const Workspace scratch(workspace, workspace_bytes, num_threads);
            const std::int64_t needed = pyxai::cpu::crop_workspace(args, num_threads);
            if (scratch.is_too_small(needed)) {
                return needed;
            }
            pyxai::cpu::crop(args, scratch.memory, num_threads);
            return 0;
        },
        py::arg("photo"), py::arg("photo_dtype"), py::arg("strides"), py::arg("sizes"),
        py::arg("boxes"), py::arg("count"), py::arg("scale"), py::arg("shift"), py::arg("out"),
        py::arg("dtype"), py::arg("channels_last"), py::arg("height"), py::arg("width"),
        py::arg("workspace"), py::arg("workspace_bytes"), py::arg("num_threads"), unlocked);

    module.def(
        "window_heatmap",
        [](Address scores, std::int64_t maps, Address boxes, std::int64_t count, Address out,
           std::int64_t height, std::int64_t width, Address workspace, std::int64_t workspace_bytes,
           int num_threads) -> std::int64_t {
            const HeatmapArgs args = heatmap_args(scores, maps, boxes, count, out, height, width);
            check_boxes(args.boxes, count, height, width);
            const Workspace scratch(workspace, workspace_bytes, num_threads);
            const std::int64_t needed = pyxai::cpu::heatmap_workspace(args, num_threads);
            if (scratch.is_too_small(needed)) {
                return needed;
            }
            pyxai::cpu::heatmap(args, scratch.memory, num_threads);
            return 0;
        },
        py::arg("scores"), py::arg("maps"), py::arg("boxes"), py::arg("count"), py::arg("out"),
        py::arg("height"), py::arg("width"), py::arg("workspace"), py::arg("workspace_bytes"),
        py::arg("num_threads"), unlocked);
}
