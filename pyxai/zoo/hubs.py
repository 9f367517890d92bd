"""Networks by name: of torchvision, of timm, of the Hugging Face hub, and the one of pyxai."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from pyxai._errors import MissingExtraError, argument_error, closest
from pyxai.classifier.carried import label_names
from pyxai.images import Preprocessing
from pyxai.images.configs import hf_preprocessing, timm_preprocessing
from pyxai.images.transforms import transforms_preprocessing


class Loaded(NamedTuple):
    """A network with what is known about it.

    Attributes:
        model: in any mode, on any device.
        class_names: or None.
        preprocessing: or None.
        name: what it is called; None for "as its file".
    """

    model: nn.Module
    class_names: Sequence[str] | None
    preprocessing: Preprocessing | None
    name: str | None


class WeightsError(OSError):
    """Weights are not available: no network, not on the server, or damaged on the way."""


# --------------------------------------------------------------------------------------------------
# demo


def demo(*, random: bool = False, num_classes: int | None = None) -> Loaded:
    """The scene classifier that ships with pyxai; with random weights for `architecture="demo"`."""
    from pyxai.zoo import demo as network

    names = network.CLASS_NAMES
    if random:
        model = network.DemoNet(len(names) if num_classes is None else num_classes)
    else:
        with _same_random_state():
            model = network.load_demo_network()
    return Loaded(model, names, Preprocessing(**network.PREPROCESSING), "demo")


# --------------------------------------------------------------------------------------------------
# torchvision

_HANDING_OUT = threading.Lock()


def torchvision(
    name: str,
    weights: str | None = "default",
    *,
    num_classes: int | None = None,
    with_preprocessing: bool = True,
    **options: Any,
) -> Loaded:
    """A classification network of torchvision.

    Args:
        name: as in `torchvision.models.list_models(torchvision.models)`.
        weights: "default", the name of other weights, or None for random ones.
        num_classes: other than the network's own, for random weights only.
        with_preprocessing: whether to work it out.
        options: for the constructor, with random weights only.

    Raises:
        MissingExtraError: torchvision is not installed.
        ValueError: an unknown network or weights.
        WeightsError: the weights are not available.
    """
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise MissingExtraError(
            f"'torchvision:{name}'", "torchvision (built for this torch)", "torchvision"
        ) from error
    spec = f"torchvision:{name}"
    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(
            f"source: expected a classification network of torchvision, got {name!r}"
            + closest(name, known)
        )
    members: Mapping[str, Any] = models.get_model_weights(name).__members__
    entry = members.get("DEFAULT") or next(iter(members.values()), None)
    if weights is None:
        if name in ("googlenet", "inception_v3"):  # warn when it is not said
            options.setdefault("init_weights", num_classes is None)
        if num_classes is not None:
            options["num_classes"] = num_classes
        model = models.get_model(name, weights=None, **options)
    else:
        if weights.lower() != "default":
            entry = members.get(weights)
        if entry is None:
            raise _unknown_weights(spec, weights, members)
        model = _pretrained_torchvision(models, name, entry)
    names = None if entry is None else entry.meta.get("categories")
    found = None
    if with_preprocessing and entry is not None:
        found = transforms_preprocessing(spec, entry.transforms())
    return Loaded(model, names, found, spec)


def _pretrained_torchvision(models: Any, name: str, entry: Any) -> nn.Module:
    """The network with weights that were read without unpickling.

    torchvision's builders set what depends on the weights, but read them with the full unpickler.
    So the weights are read first, the safe way, and the builder is handed these.
    """
    spec = f"torchvision:{name}"
    try:
        state = entry.get_state_dict(
            progress=sys.stderr.isatty(), check_hash=True, weights_only=True
        )
    except Exception as error:  # URLError, RuntimeError for a wrong hash, UnpicklingError, EOFError
        raise unavailable(spec, f"{entry.name} from {entry.url}", error) from error
    with _same_random_state(), _HANDING_OUT:
        entry.get_state_dict = lambda *args, **kwargs: state
        try:
            model: nn.Module = models.get_model(name, weights=entry, progress=False)
        finally:
            del entry.get_state_dict
    return model


# --------------------------------------------------------------------------------------------------
# timm


def timm(
    name: str,
    weights: str | None = "default",
    *,
    num_classes: int | None = None,
    with_preprocessing: bool = True,
) -> Loaded:
    """A network of timm.

    Args:
        name: as in `timm.list_models()`, with or without a tag.
        weights: "default", a tag, or None for random ones.
        num_classes: other than the network's own, for random weights only.
        with_preprocessing: whether to work it out.

    Raises:
        MissingExtraError: timm is not installed.
        ValueError: an unknown network or tag, or preprocessing that cannot be expressed.
        WeightsError: the weights are not available.
    """
    try:
        import timm as package
    except (ImportError, RuntimeError) as error:
        raise MissingExtraError(f"'timm:{name}'", "timm", "timm") from error
    network, _, tag = name.partition(".")
    if weights not in ("default", None):
        if tag and tag != weights:
            raise argument_error("weights", f"'default', None or {tag!r} for timm:{name}", weights)
        tag = weights
    full = f"{network}.{tag}" if tag else network
    spec = f"timm:{full}"
    if ":" in network or not package.is_model(network):
        hint = closest(network, package.list_models())
        if ":" in network or "/" in network:
            hint = "; timm's networks on the Hugging Face hub are 'hf:timm/NAME'"
        raise ValueError(f"source: expected a network of timm, got {network!r}{hint}")
    tags = [each.partition(".")[2] for each in package.list_pretrained(f"{network}.*")]
    if tag and tag not in tags:
        raise _unknown_weights(f"timm:{network}", tag, tags)
    options = {} if num_classes is None else {"num_classes": num_classes}
    if weights is None:
        model = package.create_model(full, pretrained=False, **options)
    else:
        _refuse_unpickling(package, full)
        try:
            with _same_random_state():
                model = package.create_model(full, pretrained=True)
        except Exception as error:  # of the hub, of its HTTP client, of torch, of safetensors
            raise unavailable(spec, "its pretrained weights", error) from error
    found = None
    if with_preprocessing:
        found = timm_preprocessing(spec, package.data.resolve_model_data_config(model))
    return Loaded(model, _timm_class_names(package, model), found, spec)


def _refuse_unpickling(package: Any, full: str) -> None:
    """Older versions of timm read some checkpoints with the full unpickler."""
    loader = inspect.signature(package.models._hub.load_state_dict_from_hf)
    weights_only = loader.parameters.get("weights_only")
    if weights_only is not None:
        if weights_only.default is True:
            return
        file = package.get_pretrained_cfg(full).hf_hub_filename or ""
        if not file or file.endswith(".safetensors"):
            return
    raise ImportError(
        f"timm {package.__version__} would unpickle the weights of {full}, which can run code; "
        "update it: pip install --upgrade timm"
    )


def _timm_class_names(package: Any, model: Any) -> Sequence[str] | None:
    config = model.pretrained_cfg
    count = model.num_classes
    names = config.get("label_names")
    if names is None and "num_classes" in config and count == config["num_classes"]:
        subset = package.data.infer_imagenet_subset(model)
        names = package.data.ImageNetInfo(subset).label_descriptions() if subset else None
    return names if names is not None and len(names) == count else None


# --------------------------------------------------------------------------------------------------
# Hugging Face


def hugging_face(
    name: str, weights: str | None = "default", *, with_preprocessing: bool = True
) -> Loaded:
    """An image classifier of the Hugging Face hub, or a folder of `save_pretrained`.

    Only safetensors weights are read, and code that comes with a model is never run.

    Args:
        name: "owner/name", or a folder.
        weights: "default", or None for random ones.
        with_preprocessing: whether to work it out.

    Raises:
        MissingExtraError: transformers is not installed.
        ValueError: no image classifier, one that needs its own code or was not trained to the end,
            or preprocessing that cannot be expressed.
        WeightsError: the weights are not available.
    """
    try:
        import transformers
    except (ImportError, RuntimeError) as error:
        raise MissingExtraError(f"'hf:{name}'", "transformers", "hf") from error
    if weights not in ("default", None):
        raise argument_error("weights", "'default' or None for a Hugging Face model", weights)
    spec = f"hf:{name}"
    safe: dict[str, Any] = {"trust_remote_code": False}
    local = Path(name).is_dir()
    if local and not Path(name, "config.json").is_file():
        raise FileNotFoundError(f"{spec}: the folder has no config.json")
    factory = transformers.AutoModelForImageClassification
    with _same_random_state(keep=weights is not None), _hub_errors(spec):
        config = transformers.AutoConfig.from_pretrained(name, **safe)
        if weights is None:
            model = factory.from_config(config, **safe)
        else:
            model, report = factory.from_pretrained(
                name, config=config, use_safetensors=True, output_loading_info=True, **safe
            )
            missing = sorted(report["missing_keys"])
            if missing:
                raise ValueError(
                    f"{spec}: its weights lack {', '.join(missing[:3])} ({len(missing)} in all), "
                    "which would be random: not a trained classifier"
                )
        processor = None
        # Networks of timm tell their preprocessing in config.json.
        told = config.model_type == "timm_wrapper" or Path(name, _PROCESSOR).is_file()
        if with_preprocessing and (told or not local):
            processor = transformers.AutoImageProcessor.from_pretrained(name, **safe)
    found = None if processor is None else hf_preprocessing(spec, processor.to_dict())
    return Loaded(model.float(), label_names(config.id2label), found, spec)


_PROCESSOR = "preprocessor_config.json"


@contextmanager
def _hub_errors(spec: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, ImportError, WeightsError):
        raise  # no image classifier; code of its own; a package that this model needs
    except Exception as error:  # OSError for most, but also those of the HTTP client, safetensors
        raise unavailable(spec, "the model", error, random=False) from error


# --------------------------------------------------------------------------------------------------
# for all

LOADERS: dict[str, Callable[..., Loaded]] = {
    "torchvision": torchvision,
    "timm": timm,
    "hf": hugging_face,
}
"""By prefix."""


def unavailable(spec: str, what: str, error: BaseException, *, random: bool = True) -> WeightsError:
    """The error for weights that are not available, in one line."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    ways = "weights=None builds it with random weights, or load a local file"
    if not random:
        ways = "a folder that save_pretrained wrote is loaded without a network: 'hf:./FOLDER'"
    return WeightsError(f"{spec}: {what} not available ({reason}); {ways}")


def _unknown_weights(
    spec: str, weights: str, known: Sequence[str] | Mapping[str, Any]
) -> ValueError:
    names = [each for each in known if each != "DEFAULT"]
    expected = ", ".join(("'default'", "None", *map(repr, names[:8]))) + ", …" * (len(names) > 8)
    return ValueError(
        f"weights: expected one of {expected} for {spec}, got {weights!r}"
        + (closest(weights, names) if len(names) > 8 else "")
    )


@contextmanager
def _same_random_state(*, keep: bool = True) -> Iterator[None]:
    """Initial weights that are overwritten anyway do not use up random numbers of the caller."""
    with torch.random.fork_rng(devices=[], enabled=keep):
        yield
