"""Tells one set of weights, and one classifier, from another."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from pyxai.classifier import Classifier


def fingerprint(network: nn.Module) -> str:
    """A digest of all weights and buffers."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(network.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            plain = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(f"{name} {tensor.dtype} {[*tensor.shape]}".encode())
            digest.update(plain.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def identity(classifier: Classifier) -> str:
    """A text that is the same for classifiers that say the same of every photo, in the same words.

    Of weights and buffers, preprocessing and class names.
    """
    steps, names, output = classifier.preprocessing, classifier.class_names, classifier.output
    said = "" if output is None else f" {getattr(output, '__qualname__', repr(output))}"
    return f"{fingerprint(classifier.network)} {steps!r} {names!r}{said}"
