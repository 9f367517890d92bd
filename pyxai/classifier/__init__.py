"""A borrowed model with what is needed to explain it: layers, head, preprocessing, class names."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence

import torch
from torch import nn

from pyxai._errors import argument_error
from pyxai.classifier.borrow import borrowed, call, unwrap
from pyxai.classifier.carried import class_names_of, preprocessing_of
from pyxai.classifier.examined import Examined
from pyxai.classifier.heads import LinearHead
from pyxai.classifier.names import ClassNames
from pyxai.classifier.odd_models import check_embeds, check_model, check_numbers
from pyxai.classifier.outputs import ResolvedTarget, Target, class_index, resolve_target
from pyxai.classifier.reading import OutputWarning, Reading
from pyxai.classifier.returned import Output
from pyxai.images import Images, Preprocessing, PreprocessingLike, is_model_input, to_batch

__all__ = [
    "Classifier",
    "Examined",
    "LinearHead",
    "OutputWarning",
    "ResolvedTarget",
    "Target",
    "as_classifier",
]


_warned: weakref.WeakSet[nn.Module] = weakref.WeakSet()


class Classifier:
    """Wraps any `nn.Module` that classifies images; the module stays the user's.

    Nothing about the module is changed for good: after each call, also one that raised, its mode,
    `requires_grad`, gradients, hooks, buffers and the global random state are as before. Several
    threads may use one classifier at once. Every call runs in evaluation mode.

    Attributes:
        model: the module as it was given.
        class_names: one name a class, or None.
        preprocessing: how photos become the model's input.
        output: where the logits are in what the model returns; None, to be found.
        name: what to call it in reports.
        last_reading: how its logits were read when it ran last.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        class_names: ClassNames | None = None,
        preprocessing: PreprocessingLike | None = None,
        output: Output = None,
        name: str | None = None,
    ) -> None:
        """Wraps a model.

        Args:
            model: images `[N, C, H, W]` -> logits `[N, K]`, as a tensor, or in a tuple, a dict or
                an object with `.logits`. One number an image (`[N]` or `[N, 1]`) is the logit of a
                class against all else.
            class_names: K names in the order of the logits, a dict index -> name (JSON's too), or
                a dict name -> index such as `ImageFolder.class_to_idx`; two for a single logit, the
                first for what speaks against it. By default those that the model carries:
                `config.id2label` of transformers, `label_names` of timm.
            preprocessing: mean, deviation, resize and crop for photos: a `Preprocessing`, or what
                `pyxai.images.as_preprocessing` reads one from (transforms of torchvision and timm,
                an image processor of transformers, a data config of timm). By default what a model
                of timm carries, else the ImageNet mean and deviation and no resize. Float tensors
                are taken as they are.
            output: where the logits are, for a model that returns more than these: an index, a key
                or attribute, or a function of what it returns. None finds them: in what is called
                `logits` or `out`, else in the output with as many columns as there are class names.
            name: by default the name of the module's class.

        Raises:
            ValueError: the model is no `nn.Module`; names that are not one for each index; a
                preprocessing that cannot be understood, or says more than `Preprocessing` can.
        """
        self.model = check_model(model)
        self.class_names = class_names_of(unwrap(model), class_names)
        self._names_given = class_names is not None
        self.preprocessing = preprocessing_of(unwrap(model), preprocessing)
        if not (output is None or isinstance(output, (int, str)) or callable(output)):
            raise argument_error("output", "an index, a name, or a function", output)
        self.output = output
        self.name = name or type(unwrap(model)).__name__
        self.last_reading = self.reading

    def __repr__(self) -> str:
        classes = "" if self.class_names is None else f", {len(self.class_names)} classes"
        return f"Classifier({self.name}{classes})"

    @property
    def network(self) -> nn.Module:
        """The module with the layers: `model` without the wrap of torch.compile or DataParallel."""
        return unwrap(self.model)

    @property
    def device(self) -> torch.device:
        """Where the first parameter or buffer lies; the CPU for a model without any."""
        return self._like().device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first floating parameter or buffer; float32 without any."""
        return self._like().dtype

    @property
    def reading(self) -> Reading:
        """How to read its logits, as far as that was told."""
        return Reading(self.output, None if self.class_names is None else len(self.class_names))

    def _like(self) -> torch.Tensor:
        for tensors in (self.model.parameters(), self.model.buffers()):
            for tensor in tensors:
                if tensor.is_floating_point():
                    return tensor
        return torch.empty(0, dtype=torch.float32, device="cpu")

    def to_input(self, images: Images) -> torch.Tensor:
        """Photos or a batch as the model's input, on its device.

        Args:
            images: a float tensor `[N, C, H, W]` is taken as it is and only moved; anything else is
                photos, which go through `preprocessing`.

        Returns:
            `[N, C, H, W]`; photos get the model's dtype.

        Raises:
            pyxai.images.ImageError: photos that cannot be used, all of them named.
        """
        if is_model_input(images):
            if images.is_meta or self.device.type == "meta":
                check_numbers(self.network, images)
            return images.to(self.device)
        return to_batch(images, self.preprocessing, device=self.device, dtype=self.dtype)

    def __call__(self, images: Images) -> torch.Tensor:
        """The logits `[N, K]` of images; see `to_input` for what these may be.

        A network that returns one number an image has K = 1. One that ends in a softmax or sigmoid
        gives probabilities; its logits are what these were made of, up to a constant.

        Raises:
            ValueError: the model does not return logits.
        """
        inputs = self.to_input(images)
        with borrowed(self.network):
            return self.logits(inputs)

    def logits(self, inputs: torch.Tensor, *, ours: bool = False) -> torch.Tensor:
        """The logits `[N, K]` of model input, with a graph if gradients are on.

        Call it inside `pyxai.classifier.borrow.borrowed`.

        Args:
            inputs: `[N, C, H, W]`.
            ours: whether the model may change them in place, as nobody needs them afterwards.

        Raises:
            ValueError: the model does not return logits, or more or fewer than class names given.
        """
        return Examined(self, inputs).read(call(self.model, inputs, ours=ours))

    def warn(self, message: str) -> None:
        """Warns about what is taken for logits, the first time.

        Raises:
            ValueError: the network is known to give none.
        """
        check_embeds(self.network)
        if self.network not in _warned:
            _warned.add(self.network)
            warnings.warn(f"{self.name}: {message}", OutputWarning, stacklevel=3)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities `[N, K]` of logits `[N, K]` that this classifier gave.

        The sigmoid of a single logit, and of labels that do not exclude each other, where the
        network itself ends in a sigmoid; else softmax.
        """
        return self.last_reading.probabilities(logits)

    def activations(self, images: Images, layers: str | Sequence[str]) -> dict[str, torch.Tensor]:
        """The outputs of layers; the forward pass ends after the last of them.

        Args:
            images: see `to_input`.
            layers: one name or several, as in `model.named_modules()`, or as `pyxai layers` lists
                them: "relu#2", the second run of a layer; "relu before pool", what a function
                gives.

        Returns:
            The output of each layer, without a graph, on the model's device. A layer that runs
            several times gives its last output.

        Raises:
            ValueError: a layer does not exist (with the closest names) or gives no tensor.
        """
        return Examined(self, self.to_input(images)).activations(layers)

    def last_spatial_layer(self, images: Images, target: Target = None) -> str:
        """The layer that maps are made from by default: the last one with spatial positions.

        Its output is a map `[N, C, h, w]` or `[N, h, w, C]`, or tokens `[N, T, C]` of patches and
        perhaps a class token and registers. Only layers count on whose positions the logits depend:
        for a network that reads its class token, that is the norm before the last attention. Where
        functions follow the last module, it is what they give: "relu before pool". Found by running
        the model once or twice, and kept; see `pyxai.classifier.examined`.

        Args:
            images: see `to_input`.
            target: a function of the outputs, if it is its scores that the layer must matter to.

        Raises:
            ValueError: the network has none.
        """
        return Examined(self, self.to_input(images)).layer(target)

    def linear_head(self, images: Images, layer: str) -> LinearHead | None:
        """The head after a layer if it is the mean over positions and linear layers, else None."""
        return Examined(self, self.to_input(images)).linear_head(layer)

    def class_index(self, target: int | str) -> int:
        """The index of a class given by index or name.

        Raises:
            ValueError: the name is unknown (with the closest names) or ambiguous.
        """
        return class_index(target, self.class_names)

    def class_name(self, index: int) -> str:
        """The name of a class, or "class 7" where there are no names."""
        return f"class {index}" if self.class_names is None else self.class_names[index]

    def resolve_target(self, target: Target, logits: torch.Tensor) -> ResolvedTarget:
        """A target (but a callable) as indices into these logits; see `pyxai.cam`."""
        return resolve_target(target, logits, self.class_names)

    def check_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits, once they fit the class names.

        Names that the model carries do not count any more where its head was exchanged.

        Raises:
            ValueError: there are more or fewer logits than class names were given.
        """
        if self.class_names is not None and logits.shape[1] != len(self.class_names):
            if not self._names_given:
                self.class_names = None
                return logits
            raise ValueError(
                f"class_names: expected {logits.shape[1]} names, one for each logit of "
                f"{self.name}, got {len(self.class_names)}"
            )
        return logits


def typical_input_shape(
    network: nn.Module, preprocessing: Preprocessing | None
) -> tuple[int, int, int]:
    """(channels, height, width) of an input: what the preprocessing gives, else 224 x 224."""
    size = preprocessing and (preprocessing.crop or preprocessing.resize)
    height, width = (size, size) if isinstance(size, int) else size or (224, 224)
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    return (3 if first is None else first.in_channels), height, width


def typical_input(classifier: Classifier) -> torch.Tensor:
    """One image of noise `[1, C, H, W]` of the usual size, the same at every call."""
    shape = typical_input_shape(classifier.network, classifier.preprocessing)
    noise = torch.randn(
        1,
        *shape,
        generator=torch.Generator(device="cpu").manual_seed(0),
        dtype=torch.float32,
        device="cpu",
    )
    return noise.to(classifier.device, classifier.dtype)


def as_classifier(model: nn.Module | Classifier) -> Classifier:
    """The classifier itself, or a module wrapped on the fly.

    Raises:
        ValueError: it is neither.
    """
    return model if isinstance(model, Classifier) else Classifier(model)
