"""Poset pooling, the plain expression of its formula, and maximum pooling, as calls for a comparison of speed."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from graphseq.bench import Call, Row, combinations
from graphseq.nn import PosetPool2d

__all__ = ["ORDERS", "calls", "cases"]

ORDERS = ("chain", "N", "diamond", "antichain")
"""Orders that are timed; the chain is the total order."""

_SHAPES = {
    "quick": [(4, 4, 8, 8)],
    "default": [(64, 32, 32, 32), (128, 16, 28, 28), (64, 32, 31, 31)],
    "full": [(64, 32, 32, 32), (128, 16, 28, 28), (64, 32, 31, 31), (128, 64, 56, 56)],
}


def cases(scale: str) -> list[Row]:
    """Return a case for each part, order and shape (B, C, Y, X) of a scale."""
    return combinations(part=["forward", "training"], order=list(ORDERS), shape=_SHAPES[scale])


def _plain(order: str) -> Callable[[Tensor], Tensor]:
    layer = PosetPool2d(order)
    filters = torch.tensor(layer.poset.filters(), dtype=torch.float32)

    def pool(x: Tensor) -> Tensor:
        x = functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        windows = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).transpose(3, 4).flatten(4)  # (B, C, Y', X', 4)
        return (windows @ filters.to(x.device).T).amax(-1)

    return pool


def calls(case: Row, x: Tensor) -> dict[str, Call]:
    """Return the contenders of a case: *poset*, *plain* (the same values) and *max_pool2d* (other values).

    Each gives its output and, in the part ``training``, the gradient of the input.

    Args:
        case: one of :func:`cases`.
        x: images of the shape of the case.
    """
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "poset": PosetPool2d(case["order"]),
        "plain": _plain(case["order"]),
        "max_pool2d": lambda images: functional.max_pool2d(images, 2, ceil_mode=True),
    }
    return {name: _call(function, x, case["part"] == "training") for name, function in functions.items()}


def _call(function: Callable[[Tensor], Tensor], x: Tensor, training: bool) -> Call:
    x = x.clone().requires_grad_(training)
    with torch.no_grad():
        incoming = torch.linspace(-1, 1, function(x).numel(), device=x.device).view(function(x).shape)

    def call() -> list[Tensor]:
        with torch.set_grad_enabled(training):
            y = function(x)
        return [y.detach(), *torch.autograd.grad(y, x, incoming)] if training else [y]

    return call
