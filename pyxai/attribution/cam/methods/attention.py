"""LeGrad: how the score reacts to the attention of each block of a transformer."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from pyxai.attribution.cam.methods.registry import Evidence, method
from pyxai.classifier.borrow import borrowed, call
from pyxai.classifier.calls import FunctionCalls


@method("legrad", layer=False)
def legrad(evidence: Evidence) -> torch.Tensor:
    """LeGrad (Bousselham et al. 2024, arXiv:2404.03214, Eq. 5 to 9), for vision transformers.

    For each block l, s_l is the score that the network's own head gives for the tokens after that
    block. The map is the mean over blocks, heads and queries of ReLU(∂s_l / ∂ attention_l), for the
    keys that are patches. Attention is observed where it is computed (scaled_dot_product_attention,
    nn.MultiheadAttention or a softmax), so the code of the network does not matter. One forward
    pass with a graph, and for each block and target the backward pass of one block and the head.

    Raises:
        ValueError: the network has no blocks with one global attention each.
    """
    with borrowed(evidence.network), torch.enable_grad(), evidence.gradients_through():
        images = evidence.inputs.detach().clone().requires_grad_()
        blocks, attention, tokens = _observe(evidence.network, images)
        layout, rest = evidence.rest_after(blocks[-1], tokens[-1])
        total: torch.Tensor | None = None
        axis = 1 if layout.batch_first else 0
        for kept, output in zip(attention, tokens, strict=True):
            if kept.shape[-1] != output.shape[axis] or layout.kind != "tokens":
                raise _unfit(f"attention {[*kept.shape]} for tokens {[*output.shape]}")
            scores = evidence.scores_in(rest(output, images))
            found = []
            for k in range(scores.shape[1]):
                (gradient,) = torch.autograd.grad(scores[:, k].sum(), kept, retain_graph=True)
                share = gradient.float().relu().mean(dim=(1, 2))[:, layout.prefix :]
                found.append(share.reshape(len(share), layout.height, layout.width))
            maps = torch.stack(found, dim=1)
            total = maps if total is None else total + maps
    assert total is not None
    return total / len(blocks)


def _unfit(got: str) -> ValueError:
    return ValueError(
        "method: expected a transformer whose blocks have one global attention each for 'legrad', "
        f"got {got}; use another method"
    )


def _observe(
    network: nn.Module, images: torch.Tensor
) -> tuple[list[str], list[torch.Tensor], list[torch.Tensor]]:
    """The blocks with exactly one attention each: names, attention and tokens after each."""
    attention = _Attention()
    watch = _Blocks(attention)
    handles = []
    try:
        for name, module in network.named_modules():
            # Blocks are numbered: "blocks.3", "encoder.layers.encoder_layer_3", "layer.3".
            if name and name[-1].isdigit():
                handles.append(module.register_forward_pre_hook(partial(watch.before, name)))
                handles.append(module.register_forward_hook(partial(watch.after, name)))
        with attention:
            call(network, images)
    finally:
        for handle in handles:
            handle.remove()
    names = watch.outermost()
    if not names or len(names) != len(attention.kept):
        raise _unfit(f"{len(attention.kept)} attentions in {len(names)} blocks")
    return names, attention.kept, [watch.found[name][1] for name in names]


class _Blocks:
    """Hooks that tell which modules compute exactly one attention.

    Attributes:
        found: by name the number of that attention, and the tokens after the module.
    """

    def __init__(self, attention: _Attention) -> None:
        self.found: dict[str, tuple[int, torch.Tensor]] = {}
        self._attention = attention
        self._owner = threading.get_ident()
        self._started: dict[str, int] = {}

    def before(self, name: str, module: nn.Module, arguments: Any) -> None:
        if threading.get_ident() == self._owner:
            self._started[name] = len(self._attention.kept)

    def after(self, name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        if threading.get_ident() != self._owner:
            return
        number = self._started[name]
        tensor = output[0] if isinstance(output, (tuple, list)) else output
        one = len(self._attention.kept) == number + 1
        if one and isinstance(tensor, torch.Tensor) and tensor.ndim == 3:
            self.found[name] = (number, tensor)

    def outermost(self) -> list[str]:
        """The outermost module around each attention."""
        chosen: dict[int, str] = {}
        for name, (number, _) in self.found.items():
            if number not in chosen or name.count(".") < chosen[number].count("."):
                chosen[number] = name
        return [chosen[number] for number in sorted(chosen)]


class _Attention(FunctionCalls):
    """Keeps each attention `[N, heads, T, T]` that is computed by this thread, with its graph."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[torch.Tensor] = []

    def called(self, function: Any, args: Sequence[Any], named: dict[str, Any]) -> Any:
        if function is functional.scaled_dot_product_attention:
            return self._attend(*args, **named)
        if function is functional.multi_head_attention_forward:
            return self._attend_with_heads(*args, **named)
        output = function(*args, **named)
        softmax = function in (functional.softmax, torch.softmax, torch.Tensor.softmax)
        if softmax and output.ndim == 4 and output.shape[-1] == output.shape[-2]:
            self.kept.append(output)
        return output

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        """Scaled dot product attention, with its matrix in the graph."""
        if is_causal or enable_gqa:
            raise _unfit("causal or grouped attention")
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        logits = query @ key.mT * scale
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            logits = logits.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            logits = logits + attn_mask
        matrix = logits.softmax(dim=-1)
        self.kept.append(matrix)
        return matrix @ value

    def _attend_with_heads(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        embed_dim_to_check: int,
        num_heads: int,
        in_proj_weight: torch.Tensor | None,
        in_proj_bias: torch.Tensor | None,
        bias_k: torch.Tensor | None,
        bias_v: torch.Tensor | None,
        add_zero_attn: bool,
        dropout_p: float,
        out_proj_weight: torch.Tensor,
        out_proj_bias: torch.Tensor | None,
        training: bool = True,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        **other: Any,
    ) -> tuple[torch.Tensor, None]:
        """What nn.MultiheadAttention calls, for plain self-attention `[T, N, C]`."""
        special = [bias_k, bias_v, key_padding_mask, attn_mask, other.get("static_k")]
        if in_proj_weight is None or add_zero_attn or any(each is not None for each in special):
            raise _unfit("an nn.MultiheadAttention with masks or added tokens")
        length, images, _ = query.shape
        weights = in_proj_weight.chunk(3)
        biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
        queries, keys, values = (
            functional.linear(each, weight, bias)
            .reshape(len(each), images, num_heads, -1)
            .permute(1, 2, 0, 3)
            for each, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        mixed = self._attend(queries, keys, values).permute(2, 0, 1, 3).reshape(length, images, -1)
        return functional.linear(mixed, out_proj_weight, out_proj_bias), None
