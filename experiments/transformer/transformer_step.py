"""A training step of a transformer language model, beside the same network from the parts of ``torch.nn``.

A decoder with learned positions, Pre-LN blocks with layer norms and biases, causal attention, GELU between two layers
of 4 times the width, tied embeddings and no dropout; float32, random tokens of 65. A step is the loss, its gradients,
and a step of AdamW.

* *ours*: ``TransformerLanguageModel`` of ``SequenceBlock`` with ``CausalAttention`` and ``FeedForward``.
* *torch.nn*: ``TransformerEncoder`` of ``TransformerEncoderLayer`` with a causal mask, and ``Embedding``.

Both begin with the same weights; logits and the gradients of all weights are compared before anything is timed.

Rule, on one thread, medians: in every case a step of ours takes at most 1.05 times that of the network from torch.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.bench import AtLeast, Call, Row, Scale, Setting, Speed, same_outputs
from graphseq.core import make
from graphseq.models import TransformerLanguageModel
from graphseq.nn import BlockStack, CausalAttention, FeedForward, LearnedPositions, NoPositions, PreNorm, SequenceBlock

__all__ = ["speed"]

_TOKENS, _LAYERS, _HEADS = 65, 4, 4
_SIZES = {
    "quick": [(16, 8, 4)],
    "default": [(64, 64, 32), (128, 128, 16), (256, 256, 8)],
    "full": [(64, 64, 32), (128, 128, 16), (256, 256, 8), (512, 512, 8)],
}


class FromTorch(nn.Module):
    """The same decoder from the parts of ``torch.nn``."""

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            width, _HEADS, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, _LAYERS, nn.LayerNorm(width), enable_nested_tensor=False)
        self.embedding, self.positions = nn.Embedding(_TOKENS, width), nn.Embedding(steps, width)
        self.mask: Tensor
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(steps))

    def forward(self, ids: Tensor) -> Tensor:
        """Return the logits of the next token at each step."""
        x = self.embedding(ids) + self.positions.weight[: ids.shape[1]]
        return functional.linear(self.layers(x, self.mask, is_causal=True), self.embedding.weight)


def ours(width: int, steps: int) -> TransformerLanguageModel:
    """Return the decoder from the parts of graphseq."""
    norm = make(nn.LayerNorm, width)
    mixer = CausalAttention(width, _HEADS, NoPositions(), bias=True)
    block = SequenceBlock(mixer, FeedForward(width), PreNorm(width, norm))
    stack = BlockStack([block], _LAYERS, make(nn.LayerNorm, width), LearnedPositions(width, steps))
    return TransformerLanguageModel(_TOKENS, stack)


def pairs(one: Any, other: Any) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Return each weight of ours with the one of the other network that stands for it."""
    found = [(one.embedding.weight, other.embedding.weight), (one.layers.positions.weight, other.positions.weight)]
    parts = [(one.layers.norm, other.layers.norm)]
    for mine, theirs in zip(one.layers.blocks, other.layers.layers, strict=True):
        projection, attention = mine.mixer.projection, theirs.self_attn
        found += [(projection.weight, attention.in_proj_weight), (projection.bias, attention.in_proj_bias)]
        parts += [(mine.mixer.output, attention.out_proj), (mine.mixer_residual.norm, theirs.norm1)]
        parts += [(mine.feed_forward.input, theirs.linear1), (mine.feed_forward.output, theirs.linear2)]
        parts.append((mine.feed_forward_residual.norm, theirs.norm2))
    for left, right in parts:
        found += zip(left.parameters(), right.parameters(), strict=True)
    return found


@dataclass
class Subject:
    """Both networks with equal weights, their weights in the same order, and a batch."""

    models: dict[str, nn.Module]
    weights: dict[str, list[nn.Parameter]]
    ids: Tensor
    target: Tensor

    def loss(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy of a network, and its logits."""
        logits = self.models[name](self.ids)
        return functional.cross_entropy(logits.flatten(0, 1), self.target.flatten()), logits


def cases(scale: Scale) -> list[Row]:
    """Return the sizes of a scale."""
    return [dict(zip(("width", "steps", "batch"), size, strict=True)) for size in _SIZES[scale]]


def prepare(case: Row, setting: Setting) -> Subject:
    """Build both networks with equal weights, and draw a batch."""
    torch.manual_seed(0)
    mine, theirs = ours(case["width"], case["steps"]), FromTorch(case["width"], case["steps"])
    matched = pairs(mine, theirs)
    with torch.no_grad():
        for one, other in matched:
            other.copy_(one)
    weights = {"ours": [one for one, _ in matched], "torch.nn": [other for _, other in matched]}
    models: dict[str, nn.Module] = {"ours": mine.to(setting.device), "torch.nn": theirs.to(setting.device)}
    ids = torch.randint(_TOKENS, (2, case["batch"], case["steps"])).to(setting.device)
    return Subject(models, weights, ids[0], ids[1])


def stepped(name: str, subject: Subject) -> Call:
    """Return the call of a training step, which gives the loss."""
    optimizer = torch.optim.AdamW(subject.weights[name], lr=1e-3)

    def call() -> Tensor:
        optimizer.zero_grad()
        loss, _ = subject.loss(name)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return call


def same(subject: Subject, calls: Mapping[str, Call]) -> Row:
    """Compare logits and the gradients of all weights, of the weights that both begin with."""

    def gradients(name: str) -> list[Tensor]:
        loss, logits = subject.loss(name)
        return [logits.detach(), *torch.autograd.grad(loss, subject.weights[name])]

    return same_outputs()(subject, {name: functools.partial(gradients, name) for name in calls})


speed = Speed(
    name="speed.transformer_step",
    protocol=__doc__,
    cases=cases,
    prepare=prepare,
    contenders={
        "ours": lambda subject: stepped("ours", subject),
        "torch.nn": lambda subject: stepped("torch.nn", subject),
    },
    equal=same,
    packages={"torch.nn": "torch"},
    rounds={"quick": 2, "default": 15, "full": 25},
    seconds={"quick": 0.001, "default": 0.3, "full": 0.5},
    claims=[AtLeast("ours/torch.nn", 1 / 1.05, text="a step of ours takes at most 1.05 times that from torch.nn")],
)
