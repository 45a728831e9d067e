"""Linear recurrences as one function with its own gradient, which is the same recurrence backwards."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from graphseq.ops.processor import use_compiled
from graphseq.ops.scan import compiled, parallel, plain
from graphseq.ops.scan.plain import is_block, transpose

__all__: list[str] = []

Form = Callable[[Tensor, Tensor, Tensor], Tensor]
FORMS: dict[str, Form] = {
    "loop": plain.scan,
    "chunked": parallel.chunked,
    "tree": parallel.tree,
    "doubling": parallel.doubling,
}


def scan(a: Tensor, b: Tensor, initial: Tensor, reverse: bool, method: str) -> Tensor:
    """Return the states, without a gradient.

    Args:
        a: matrices (B, T, D) or (B, T, 2, 2, D).
        b: inputs (B, T, D) or (B, T, 2, D).
        initial: state before the first step (B, D) or (B, 2, D).
        reverse: whether the first step is the last one in memory.
        method: ``auto``, ``compiled`` or one of ``FORMS``.
    """
    if method == "compiled" or (method == "auto" and use_compiled(a, b, initial)):
        return compiled.scan(a, b, initial, reverse)
    if method == "auto":
        method = "chunked" if b.device.type == "cpu" else "tree"
    if reverse:
        return FORMS[method](a.flip(1), b.flip(1), initial).flip(1)
    return FORMS[method](a, b, initial)


def adjoint(arriving: Tensor, a: Tensor, method: str = "auto") -> Tensor:
    r"""Return the gradient of the inputs of a recurrence, :math:`\lambda_t = g_t + A_{t+1}^\top \lambda_{t+1}`.

    Args:
        arriving: gradients of the states (B, T, D) or (B, T, 2, D).
        a: matrices (B, T, D) or (B, T, 2, 2, D).
        method: name of the form of the scan, see :func:`scan`.
    """
    block = is_block(a, arriving)
    later = transpose(torch.cat([a[:, 1:], a[:, :1]], 1), block)  # the last one meets a state of zeros
    return scan(later, arriving, torch.zeros_like(arriving[:, 0]), True, method)


class _Scan(Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, initial: Tensor, reverse: bool, method: str) -> Tensor:
        h = scan(a, b, initial, reverse, method)
        ctx.save_for_backward(a, h, initial)
        ctx.reverse, ctx.method = reverse, method
        return h

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        a, h, initial = ctx.saved_tensors
        (arriving,), reverse, method = gradients, ctx.reverse, ctx.method
        fast = method == "compiled" or (method == "auto" and use_compiled(arriving, a, h, initial))
        if fast and not torch.is_grad_enabled():
            return *compiled.gradients(arriving, a, h, initial, reverse), None, None
        # the same in operations that can be differentiated once more
        block = is_block(a, h)
        turned = (a.flip(1), h.flip(1), arriving.flip(1)) if reverse else (a, h, arriving)
        a, h, arriving = turned
        later = transpose(torch.cat([a[:, 1:], a[:, :1]], 1), block)
        to_b = linear_scan(later, arriving, torch.zeros_like(initial), True, method)
        before = torch.cat([initial[:, None], h[:, :-1]], 1)
        to_a = to_b.unsqueeze(-2) * before.unsqueeze(-3) if block else to_b * before
        to_initial = plain.apply(transpose(a[:, 0], block), to_b[:, 0])
        if reverse:
            to_a, to_b = to_a.flip(1), to_b.flip(1)
        return to_a, to_b, to_initial, None, None


def linear_scan(a: Tensor, b: Tensor, initial: Tensor, reverse: bool, method: str) -> Tensor:
    """Return the states with their gradient, see :func:`scan`."""
    return cast(Tensor, _Scan.apply(a, b, initial, reverse, method))
