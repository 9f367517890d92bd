// Body of the isa_*.cpp units. No standard library and nothing inline that is shared with
// other units goes in here: the linker might keep the copy made for a newer processor.
#include "simd.h"

#include "../cam/cam_kernels.h"
#include "../mask/mask_kernels.h"
#include "../windows/windows_kernels.h"
#include "resize.h"

namespace pyxai::cpu::PYXAI_ISA {

namespace {
// clang-format off: each needs those before it
#include "resize_impl.h"
#include "../cam/project_impl.h"
#include "../cam/rows_impl.h"
#include "../cam/overlay_impl.h"
#include "../cam/render_impl.h"
#include "../mask/vector_math_impl.h"
#include "../mask/blend_impl.h"
#include "../mask/blend_slopes_impl.h"
#include "../mask/penalty_impl.h"
#include "../mask/step_impl.h"
#include "../windows/crop_impl.h"
// clang-format on
} // namespace

const CamKernels kCamKernels = {
    kPanelColumns,  project_planes, project_channels_last, pack_planes, pack_channels_last,
    multiply_panel, scale_map,      render_rows,
};

const MaskKernels kMaskKernels = {
    blend_under_mask, blend_slopes, sum_shown, penalize_rows, step_cells,
};

const WindowKernels kWindowKernels = {
    kLanes,
    crop_window,
    rearrange_rows,
};

} // namespace pyxai::cpu::PYXAI_ISA
