r"""Parallel scans in torch operations: linear recurrences without a loop over all steps.

All combine affine maps, :math:`(A_2, b_2) \\circ (A_1, b_1) = (A_2 A_1, A_2 b_1 + b_2)`; they differ in the order. None
takes logarithms of products, since factors may be negative or zero.
"""

import math

import torch
from torch import Tensor

from graphseq.ops.scan.plain import apply, compose, is_block

__all__: list[str] = []


def _started(a: Tensor, b: Tensor, initial: Tensor) -> Tensor:
    """Inputs of the same recurrence from a state of zeros."""
    first = b[:, :1] + apply(a[:, :1], initial[:, None])
    return torch.cat([first, b[:, 1:]], 1)


def tree(a: Tensor, b: Tensor, initial: Tensor) -> Tensor:
    """Return the states by recursion over pairs of steps: O(T) work in 2 log2 T levels of whole tensors.

    Args:
        a: matrices (B, T, D) or (B, T, 2, 2, D).
        b: inputs (B, T, D) or (B, T, 2, D).
        initial: state before the first step (B, D) or (B, 2, D).
    """
    return _tree(a, _started(a, b, initial), is_block(a, b)) if b.shape[1] else b


def _tree(a: Tensor, b: Tensor, block: bool) -> Tensor:
    if b.shape[1] == 1:
        return b
    pairs = b.shape[1] // 2
    even_a, even_b, odd_a, odd_b = a[:, 0::2], b[:, 0::2], a[:, 1::2], b[:, 1::2]
    odd = _tree(
        compose(odd_a, even_a[:, :pairs], block), torch.add(odd_b, apply(odd_a, even_b[:, :pairs])), block
    )  # states at odd places
    h = torch.empty_like(b)
    h[:, 1::2] = odd
    h[:, 0] = b[:, 0]
    h[:, 2::2] = even_b[:, 1:] + apply(even_a[:, 1:], odd[:, : even_b.shape[1] - 1])
    return h


def doubling(a: Tensor, b: Tensor, initial: Tensor) -> Tensor:
    """Return the states by combining steps at distances 1, 2, 4, ...: O(T log T) work in log2 T levels.

    Args:
        a: matrices (B, T, D) or (B, T, 2, 2, D).
        b: inputs (B, T, D) or (B, T, 2, D).
        initial: state before the first step (B, D) or (B, 2, D).
    """
    steps, block = b.shape[1], is_block(a, b)
    if not steps:
        return b
    h, distance = _started(a, b, initial), 1
    while distance < steps:
        h = torch.cat([h[:, :distance], h[:, distance:] + apply(a[:, distance:], h[:, :-distance])], 1)
        if 2 * distance < steps:
            a = torch.cat([a[:, :distance], compose(a[:, distance:], a[:, :-distance], block)], 1)
        distance *= 2
    return h


def chunked(a: Tensor, b: Tensor, initial: Tensor) -> Tensor:
    r"""Return the states in chunks of :math:`\sqrt T` steps: a loop over the steps of all chunks at once, then chunks.

    O(T) work in two passes, and the fewest bytes moved of these forms, but :math:`2 \sqrt T` operations in turn.

    Args:
        a: matrices (B, T, D) or (B, T, 2, 2, D).
        b: inputs (B, T, D) or (B, T, 2, D).
        initial: state before the first step (B, D) or (B, 2, D).
    """
    steps, block = b.shape[1], is_block(a, b)
    if not steps:
        return b
    length = math.isqrt(steps - 1) + 1
    chunks = -(-steps // length)
    whole = chunks * length
    if whole > steps:  # steps that are added after the last one change no state before
        a = torch.cat([a, a.new_zeros(a.shape[0], whole - steps, *a.shape[2:])], 1)
        b = torch.cat([b, b.new_zeros(b.shape[0], whole - steps, *b.shape[2:])], 1)
    a_of, b_of = (part.unflatten(1, (chunks, length)).unbind(2) for part in (a, b))  # each (B, chunks, ...)
    product, within = a_of[0], b_of[0]
    products, states = [product], [within]
    for a_t, b_t in zip(a_of[1:], b_of[1:], strict=True):
        product, within = compose(a_t, product, block), apply(a_t, within) + b_t
        products.append(product)
        states.append(within)
    carry, carries = initial, [initial]
    for last_product, last in zip(product.unbind(1)[:-1], within.unbind(1)[:-1], strict=True):
        carry = apply(last_product, carry) + last
        carries.append(carry)
    before = torch.stack(carries, 1)[:, :, None]  # (B, chunks, 1, ...)
    h = torch.stack(states, 2) + apply(torch.stack(products, 2), before)
    return h.flatten(1, 2)[:, :steps]
