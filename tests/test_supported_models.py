"""Classifiers of the libraries that people use, by the rows of tools/supported_models.py."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[1] / "tools" / "supported_models.py"
PACKAGES = {"torchvision": "torchvision", "timm": "timm", "Hugging Face": "transformers"}

pytestmark = pytest.mark.filterwarnings("ignore")  # those libraries' own


@cache
def the_tool():
    spec = importlib.util.spec_from_file_location("supported_models", TOOL)
    module = sys.modules["supported_models"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("library", "name", "layer", "positions", "head"),
    [
        ("torchvision", "resnet18", "layer4", "7 × 7", "linear"),
        ("torchvision", "mobilenet_v3_small", "features", "7 × 7", "other"),
        slow("torchvision", "swin_t", "permute", "7 × 7", "linear"),
        slow(
            "torchvision",
            "vit_b_32",
            "encoder.layers.encoder_layer_11.ln_1",
            "7 × 7 tokens after 1",
            "other",
        ),
        (
            "timm",
            "deit_tiny_distilled_patch16_224",
            "blocks.11.norm1",
            "14 × 14 tokens after 2",
            "",
        ),
        ("timm", "vit_small_patch14_reg4_dinov2", "blocks.11.norm1", "8 × 8 tokens after 5", ""),
        slow("timm", "swin_tiny_patch4_window7_224", "norm", "7 × 7, channels last", "linear"),
        ("timm", "pit_ti_224", "transformers.2.blocks.3.norm1", "7 × 7 tokens after 1", "other"),
        ("timm", "mixer_s16_224", "norm", "14 × 14 tokens", "linear"),
        ("timm", "mobilevit_xs", "final_conv", "8 × 8", "linear"),
        slow("timm", "cait_xxs24_224", "blocks_token_only.1.norm1", "14 × 14 tokens after 1", ""),
        ("Hugging Face", "ResNet", "resnet.encoder.stages.3", "7 × 7", "linear"),
        ("Hugging Face", "ViT", "", "14 × 14 tokens after 1", "other"),
        ("Hugging Face", "Swin", "swin.layernorm", "7 × 7 tokens", "linear"),
        (
            "Hugging Face",
            "Dinov2WithRegisters",
            "dinov2_with_registers.layernorm",
            "16 × 16 tokens after 5",
            "other",
        ),
    ],
)
def test_model_is_explained_at_once(library, name, layer, positions, head):
    """What is found, where given, and all that the tool checks."""
    package = PACKAGES[library]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")
    if library == "Hugging Face":
        name += "ForImageClassification"
    (case,) = [c for c in the_tool().cases(f"{library} {name}") if c.name == name]
    row = dict(zip(the_tool().COLUMNS, the_tool().row_of(case), strict=True))
    assert row["result"].startswith("ok"), row
    assert row["H ≠ W"] in ("ok", "not taken"), row
    assert row["layer found"] == f"`{layer}`" or not layer
    assert row["positions"] == positions
    assert row["head"] == head or not head
