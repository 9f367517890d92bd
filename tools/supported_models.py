"""Runs pyxai.cam on many architectures and says what it found in each of them.

Usage:
    python tools/supported_models.py [--only TEXT] [--write]

Needs torchvision, timm and transformers; nothing is downloaded: all weights are random. For every
model, ``pyxai.cam`` with its defaults explains two images, and the row of the table says which
layer was found, how it holds the positions of the image, what the head is, which method that led
to, and what was checked. What fails stays in the table with its reason. ``--only`` takes the
models whose name contains the text; ``--write`` writes docs/supported_models.md.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib.metadata
import platform
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pyxai
from pyxai.classifier import anatomy

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "supported_models.md"
COLUMNS = ("model", "input", "layer found", "positions", "head", "method", "result", "H ≠ W")
CLASSES = 20
TOLERANCE = 1e-4  # of the largest value of the map, between a batch and its images one by one

TORCHVISION = (
    "resnet18 resnet50 resnext50_32x4d vgg16 alexnet squeezenet1_0 densenet121 mobilenet_v2 "
    "mobilenet_v3_small efficientnet_b0 mnasnet0_5 regnet_y_400mf shufflenet_v2_x0_5 googlenet "
    "inception_v3 convnext_tiny vit_b_16 vit_b_32 swin_t swin_v2_t maxvit_t"
)
TIMM = (
    "resnet18 convnext_atto convnextv2_atto efficientnet_b0 mobilenetv4_conv_small nfnet_l0 "
    "regnety_002 repvit_m0_9 fastvit_t8 poolformer_s12 starnet_s1 mambaout_femto rdnet_tiny "
    "vit_small_patch16_224 vit_small_patch14_reg4_dinov2 vit_base_patch16_siglip_gap_224 "
    "vit_relpos_small_patch16_224 flexivit_small samvit_base_patch16_224 vitamin_small_224 "
    "deit_tiny_distilled_patch16_224 deit3_small_patch16_224 beit_base_patch16_224 "
    "eva02_tiny_patch14_224 cait_xxs24_224 xcit_nano_12_p16_224 convit_tiny crossvit_tiny_240 "
    "pit_ti_224 tnt_s_patch16_224 volo_d1_224 mixer_s16_224 resmlp_12_224 gmlp_s16_224 "
    "sequencer2d_s swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 hiera_tiny_224 "
    "mvitv2_tiny pvt_v2_b0 twins_svt_small coat_tiny nest_tiny focalnet_tiny_srf davit_tiny "
    "gcvit_xxtiny levit_128 efficientformer_l1 efficientvit_b0 tiny_vit_5m_224 edgenext_xx_small "
    "mobilevit_xs coatnet_0_rw_224 maxvit_nano_rw_256 visformer_tiny"
)


@dataclass(frozen=True)
class Case:
    """One model: `build` makes it, for square images of this size."""

    library: str
    name: str
    size: int
    build: Callable[[], nn.Module]


def torchvision_cases() -> Iterator[Case]:
    """Classifiers of torchvision."""
    from torchvision.models import get_model

    for name in TORCHVISION.split():
        options: dict[str, Any] = {"num_classes": CLASSES}
        if name in ("googlenet", "inception_v3"):
            options["init_weights"] = False  # takes a minute
        size = 299 if name == "inception_v3" else 224
        yield Case("torchvision", name, size, lambda n=name, o=options: get_model(n, **o))


def timm_cases() -> Iterator[Case]:
    """Classifiers of timm, at their own size; DINOv2 at a smaller one."""
    import timm

    for name in TIMM.split():
        options: dict[str, Any] = {"num_classes": CLASSES}
        if name.endswith("dinov2"):
            options["img_size"] = 112
        config = timm.get_pretrained_cfg(name)
        size = options.get("img_size") or (config.input_size[1] if config else 224)
        yield Case("timm", name, size, lambda n=name, o=options: timm.create_model(n, **o))
    options = {"num_classes": CLASSES, "dynamic_img_size": True}
    name = "vit_tiny_patch16_224"
    yield Case("timm", f"{name}, dynamic_img_size", 224, lambda: timm.create_model(name, **options))


def hugging_face_cases() -> Iterator[Case]:
    """Classifiers of transformers, made from configurations of few and narrow layers."""
    import transformers as hf

    plain = {
        "hidden_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 192,
        "image_size": 224,
    }
    stages = {"depths": [1, 1, 2, 1]}
    scaled = {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280}
    for name, options, size in (
        ("ResNet", stages, 224),
        ("RegNet", {}, 224),
        ("ConvNext", stages, 224),
        ("ConvNextV2", stages, 224),
        ("MobileNetV2", {}, 224),
        ("EfficientNet", scaled, 224),
        ("ViT", plain, 224),
        ("ViTMSN", plain, 224),
        ("DeiT", plain, 224),
        ("DeiT WithTeacher", plain, 224),
        ("Dinov2", {**plain, "patch_size": 14}, 224),
        ("Dinov2WithRegisters", {**plain, "patch_size": 14}, 224),
        ("Beit", plain, 224),
        ("Data2VecVision", plain, 224),
        ("IJepa", plain, 224),
        ("Siglip", {"vision_config": plain}, 224),
        ("CLIP", {"vision_config": plain}, 224),
        ("Swin", {"embed_dim": 24, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 3, 6]}, 224),
        ("Swinv2", {"embed_dim": 24, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 3, 6]}, 224),
        ("FocalNet", {"embed_dim": 24, "depths": [1, 1, 2, 1]}, 224),
        ("Hiera", {"embed_dim": 24, "depths": [1, 2, 2, 1], "num_heads": [1, 2, 4, 8]}, 224),
        ("PvtV2", {}, 224),
        ("Segformer", {}, 224),
        ("MobileViT", {}, 256),
        ("MobileViTV2", {}, 256),
        ("Levit", {}, 224),
        ("Cvt", {}, 224),
        ("PoolFormer", {}, 224),
        ("SwiftFormer", {}, 224),
        ("TextNet", {}, 224),
    ):
        kind, _, variant = name.partition(" ")
        config_class = getattr(hf, f"{kind}Config", None)
        model_class = getattr(hf, f"{kind}ForImageClassification{variant}", None)
        if config_class is None or model_class is None:
            continue  # not in this release of transformers
        yield Case(
            "Hugging Face",
            model_class.__name__,
            size,
            lambda m=model_class, c=config_class, o=options: m(c(num_labels=CLASSES, **o)),
        )


def cases(only: str) -> Iterator[Case]:
    """All cases whose library or name contains the text."""
    for family in (torchvision_cases, timm_cases, hugging_face_cases):
        for case in family():
            if only.casefold() in f"{case.library} {case.name}".casefold():
                yield case


def awake(model: nn.Module, size: int) -> nn.Module:
    """The model in evaluation mode, changed so that features and logits depend on the image.

    Several libraries begin heads and the ends of branches with zeros, and statistics of batch
    norm that fit no data let features die out in deep networks.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            largest = float(parameter.abs().max()) if parameter.numel() else 1.0
            if parameter.ndim >= 2 and largest == 0:
                parameter.normal_(0, 0.05)
            elif "bias" not in name and largest < 2e-3:
                parameter.fill_(0.3)  # the scale of a branch
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        before = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        if norms:
            model.train()(torch.randn(2, 3, size, size))
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
    return model.eval()


def state_of(model: nn.Module) -> list[Any]:
    """What a call must leave as it was, and can be compared at once."""
    hooks = [
        (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
        for m in model.modules()
    ]
    modes = [m.training for m in model.modules()]
    parameters = [(p.requires_grad, p.grad is None, p._version) for p in model.parameters()]
    return [hooks, modes, parameters, torch.get_rng_state().tolist()]


def check(model: nn.Module, images: Tensor) -> tuple[str, str]:
    """Explains images by the defaults; the method that was used, and "ok" or what is wrong."""
    before = state_of(model)
    maps, report = pyxai.cam(model, images, return_report=True)
    method = next(iter(report))
    wrong, remark = [], ""
    if maps.shape != (len(images), *images.shape[-2:]):
        wrong.append(f"maps are {[*maps.shape]}")
    if not bool(torch.isfinite(maps).all()):
        wrong.append("not finite")
    # Signed and unscaled, so that nothing is hidden and little contrast does not magnify rounding.
    raw = {"size": None, "normalize": None, "relu": False}
    together = pyxai.cam(model, images, **raw)
    single = torch.cat([pyxai.cam(model, one[None], **raw) for one in images])
    if bool((maps.flatten(1).std(dim=1) == 0).any()):
        if bool((together.flatten(1).amax(dim=1) > 0).any()) and method == "cam":
            wrong.append("constant")
        remark = "; no position speaks for the class (its signed map is not constant)"
    if bool((together.flatten(1).std(dim=1) == 0).any()):
        wrong.append("constant")
    off = float((together - single).abs().max() / together.abs().max())
    if not off <= TOLERANCE:
        wrong.append(f"batch and single images differ by {off:.0e}")
    if state_of(model) != before:
        wrong.append("the model's state changed")
    return method, ", ".join(wrong) or f"ok{remark}"


def positions_of(model: nn.Module, images: Tensor) -> tuple[str, str, str]:
    """The layer, how it holds positions, and the head."""
    classifier = pyxai.Classifier(model)
    layer = classifier.last_spatial_layer(images)
    raw = classifier.activations(images, layer)[layer]
    layout = anatomy.examine(classifier, images).layout(images, layer, raw)
    text = f"{layout.height} × {layout.width}"
    if layout.kind == "tokens":
        text += f" tokens after {layout.prefix}" if layout.prefix else " tokens"
    elif layout.kind == "nhwc":
        text += ", channels last"
    head = "other" if classifier.linear_head(images, layer) is None else "linear"
    return layer, text, head


def reason(error: Exception) -> str:
    """An error in one line of a table."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}".replace("|", "\\|")


def row_of(case: Case) -> list[str]:
    """One row of the table."""
    torch.manual_seed(0)
    row = [f"{case.library} `{case.name}`", f"{case.size}", "", "", "", "", "", ""]
    try:
        model = awake(case.build(), case.size)
    except Exception as error:
        row[6] = f"cannot be built: {reason(error)}"
        return row
    images = torch.randn(2, 3, case.size, case.size)
    try:
        row[2:5] = positions_of(model, images)
        row[2] = f"`{row[2]}`"
        row[5], row[6] = check(model, images)
    except Exception as error:
        row[6] = reason(error)
    wide = torch.randn(2, 3, case.size, case.size + 96)
    try:
        with torch.no_grad():
            model(wide)
    except Exception:
        row[7] = "not taken"  # by the model itself
        return row
    try:
        row[7] = check(model, wide)[1].partition(";")[0]
    except Exception as error:
        row[7] = reason(error)
    return row


def document(rows: list[list[str]]) -> str:
    """The document: what was run, and the table."""
    packages = ("torch", "torchvision", "timm", "transformers")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    good = sum(row[6].startswith("ok") for row in rows)
    lines = [
        "# Supported models",
        "",
        f"What `pyxai.cam(model, images)` finds by itself in {len(rows)} architectures, {good} of",
        "which pass every check. It does not know any of them: layers, grids of tokens and heads",
        "are found by running the model (docs/cam.md). This covers published architectures, as",
        "their libraries build them, and `pyxai.cam` alone. What other calls make of networks that",
        "people write themselves is in docs/hand_written_networks.md.",
        "",
        f"Made on {datetime.date.today().isoformat()} with pyxai {pyxai.__version__}, Python",
        f"{platform.python_version()}, {versions}, by",
        "`python tools/supported_models.py --write`. Weights are random, so nothing is downloaded;",
        "those of Hugging Face are made from configurations of few and narrow layers.",
        "",
        "- positions: rows × columns; *tokens after 1* are preceded by one class token.",
        "- head: *linear* is the mean over all positions and one linear layer, which makes CAM",
        "  exact; for any *other*, Grad-CAM is used.",
        "- result: *ok* if the maps have the input's size, are finite and not constant, those of a",
        f"  batch are those of its images one by one (to {TOLERANCE:.0e} of the largest value),",
        "  and the model's mode, `requires_grad`, gradients and hooks are as before, and so is the",
        "  random state.",
        "- H ≠ W: the same for wider images, if the model itself takes them.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "| " + " | ".join("---" for _ in COLUMNS) + " |",
    ]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), ""])


def main() -> None:
    """Runs all cases, printing rows as they come."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--write", action="store_true", help=f"writes {DOCUMENT.name}")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for case in cases(arguments.only):
        rows.append(row_of(case))
        print("| " + " | ".join(rows[-1]) + " |", flush=True)
        gc.collect()
    if arguments.write:
        DOCUMENT.write_text(document(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
