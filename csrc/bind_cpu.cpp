// pyxai.ops._cpu: the CPU kernels by address. Python has checked shapes and owns all memory.
#include <cstdint>
#include <tuple>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind.h"
#include "cam/cam_check.h"
#include "cpu/dispatch.h"
#include "mask/mask_check.h"
#include "windows/windows_check.h"

namespace {

using namespace pyxai;

template <class Args>
void bind_cpu(py::module_& module, const char* name, std::int64_t (*workspace)(const Args&, int),
              void (*run)(const Args&, void*, int)) {
    bind<Args>(
        module, name,
        [workspace](const Args& args, int num_threads) {
            PYXAI_CHECK(num_threads > 0, "no threads");
            return workspace(args, num_threads);
        },
        run, Names<int>{{"num_threads"}});
}

std::int64_t step_workspace(const StepArgs&, int) {
    return 0;
}

void step(const StepArgs& args, void*, int num_threads) {
    cpu::step(args, num_threads);
}

// Boxes that are not inside a photo of this size would make the kernels leave their memory.
void check_boxes(const WindowBox* boxes, std::int64_t count, std::int64_t height,
                 std::int64_t width) {
    PYXAI_CHECK(cpu::survey_boxes(boxes, count, height, width).first_bad < 0,
                "box empty or not inside the photo");
}

void crop(const CropArgs& args, void* workspace, int num_threads) {
    check_boxes(args.boxes, args.count, args.photo_height, args.photo_width);
    cpu::crop(args, workspace, num_threads);
}

void heatmap(const HeatmapArgs& args, void* workspace, int num_threads) {
    check_boxes(args.boxes, args.count, args.height, args.width);
    cpu::heatmap(args, workspace, num_threads);
}

// The first bad box, or -1; height and width of all boxes, or 0 where they differ.
std::tuple<std::int64_t, std::int64_t, std::int64_t>
survey_boxes(Address boxes, std::int64_t count, std::int64_t height, std::int64_t width) {
    const auto* const first = reinterpret_cast<const WindowBox*>(boxes);
    check_sizes("boxes", {count, 4});
    check_aligned("boxes", first, sizeof(std::int64_t));
    PYXAI_CHECK(count == 0 || boxes != 0, "boxes is null");
    const cpu::BoxSurvey survey = cpu::survey_boxes(first, count, height, width);
    return {survey.first_bad, survey.height, survey.width};
}

} // namespace

PYBIND11_MODULE(_cpu, module) {
    module.doc() = "CPU kernels of pyxai, by address; use pyxai.ops instead.";

    module.def("simd_levels", &cpu::simd_levels);
    module.def("simd_level", &cpu::simd_level);
    module.def("set_simd_level", &cpu::set_simd_level, py::arg("name"));

    bind_cpu(module, "cam_project", cpu::project_workspace, cpu::project);
    bind_cpu(module, "cam_render", cpu::render_workspace, cpu::render);
    bind_cpu(module, "cam_project_render", cpu::project_render_workspace, cpu::project_render);
    bind_cpu(module, "cam_overlay", cpu::overlay_workspace, cpu::overlay);
    bind_cpu(module, "mask_blend", cpu::blend_workspace, cpu::blend);
    bind_cpu(module, "mask_blend_slopes", cpu::blend_slopes_workspace, cpu::blend_slopes);
    bind_cpu(module, "mask_sum_shown", cpu::sum_shown_workspace, cpu::sum_shown);
    bind_cpu(module, "mask_penalty", cpu::penalty_workspace, cpu::penalty);
    bind_cpu(module, "mask_step", step_workspace, step);
    bind_cpu(module, "mask_penalized_step", cpu::penalized_step_workspace, cpu::penalized_step);
    bind_cpu(module, "crop_windows", cpu::crop_workspace, crop);
    bind_cpu(module, "window_heatmap", cpu::heatmap_workspace, heatmap);
    module.def("survey_boxes", &survey_boxes, py::arg("boxes"), py::arg("count"), py::arg("height"),
               py::arg("width"));
}
