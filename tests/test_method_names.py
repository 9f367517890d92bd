"""Methods by the names that papers and other libraries have for them."""

from __future__ import annotations

import json

import pytest
import torch
from networks import SmallNet

import pyxai
from pyxai.attribution.cam.methods import METHODS, cam_method
from pyxai.attribution.cam.methods.registry import canonical

SPELLINGS = {
    "auto": ["Auto", "AUTO"],
    "cam": ["CAM", " cam ", "C-A-M"],
    "gradcam": ["GradCAM", "grad-cam", "Grad CAM", "grad_cam", "Grad\u2011CAM", "Grad\u2013CAM"],
    "gradcam++": ["GradCAM++", "Grad-CAM++", "grad_cam_plus_plus", "GradCAMPlusPlus", "GradCAMpp"],
    "smoothgradcam++": ["SmoothGradCAMpp", "Smooth Grad-CAM++", "smooth-gradcam-plusplus"],
    "gradcam_elementwise": ["GradCAMElementWise", "gradcam-elementwise"],
    "xgradcam": ["XGradCAM", "XGrad-CAM"],
    "hirescam": ["HiResCAM"],
    "layercam": ["LayerCAM", "Layer-CAM"],
    "scorecam": ["ScoreCAM", "Score-CAM"],
    "sscam": ["SSCAM", "SS-CAM"],
    "iscam": ["ISCAM", "IS-CAM"],
    "kpcacam": ["KPCA_CAM", "KPCA-CAM"],
    "ablationcam": ["AblationCAM", "Ablation-CAM"],
    "eigencam": ["EigenCAM"],
    "eigengradcam": ["EigenGradCAM"],
    "shapleycam": ["ShapleyCAM"],
    "finercam": ["FinerCAM", "Finer-CAM"],
    "refinecam": ["RefineCAM"],
    "fullgrad": ["FullGrad", "full-grad"],
    "legrad": ["LeGrad"],
    "fem": ["FEM"],
    "random": ["Random"],
}


def test_all_methods_are_here():
    assert set(SPELLINGS) == {"auto", *METHODS}


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings(name):
    for spelling in (name, *SPELLINGS[name]):
        assert cam_method(spelling) is cam_method(name)
        assert cam_method(spelling).name == name == canonical(spelling)


@pytest.mark.parametrize(
    "name",
    ["", "-", "++", "pp", "gradcam+", "gradcam+++", "grad", "cam2", "c.m", 3, None, ["cam"]],
)
def test_names_that_are_none(name):
    with pytest.raises(ValueError, match=r"^method: expected one of 'auto', .*, got "):
        cam_method(name)


def test_results_have_the_usual_names():
    model, images = SmallNet().eval(), torch.randn(1, 3, 32, 32)
    names = ["GradCAM", "grad-cam", "HiResCAM"]
    maps, report = pyxai.cam(model, images, 1, method=names, return_report=True)
    assert [*maps] == [*report] == ["gradcam", "hirescam"]
    assert torch.equal(maps["gradcam"], pyxai.cam(model, images, 1, method="gradcam"))
    named = pyxai.cam_method("Score-CAM", channels=3)
    assert str(named) == "scorecam(channels=3)"
    assert str(pyxai.cam_method("Finer-CAM", base="GradCAM++")) == "finercam(base='GradCAM++')"
    plain, spelled = (
        pyxai.cam(model, images, 1, method=pyxai.cam_method("finercam", base=base))
        for base in ("gradcam++", "Grad-CAM++")
    )
    assert torch.equal(plain, spelled)
    served = pyxai.CamModel(model, target=1, method="Layer-CAM")
    assert torch.equal(
        served(images)[1], pyxai.CamModel(model, target=1, method="layercam")(images)[1]
    )


def test_auto_has_no_options():
    with pytest.raises(ValueError, match="options: expected none of 'auto', got 'seed'"):
        cam_method("Auto", seed=1)


def test_on_the_command_line(run):
    code, out, _ = run("explain", "--method", "Grad-CAM", "--json")
    assert code == 0
    assert {each["method"] for each in json.loads(out)["results"]} == {"gradcam"}
