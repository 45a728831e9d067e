"""Masks of spans with exact counts, and sequences with spans taken out and put back."""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

__all__ = ["corrupt_spans", "plan_length", "restore_spans", "span_counts", "span_mask"]


def span_counts(lengths: Tensor, rate: Tensor, mean_span: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return how many tokens of each sequence are taken out, and in how many spans.

    .. math:: m = \operatorname{clip}(\operatorname{round}(r L), 1, L - 1), \qquad
        n = \operatorname{clip}\bigl(\operatorname{round}(m / \mu), 1, \min(m, L - m)\bigr)

    Source: arXiv 1910.10683, section 3.1.4, and the released code of arXiv 2205.05131. Differs from them: n is limited
    where the sequence is short.

    Args:
        lengths: number L of tokens of each sequence, at least 2, int64 (B,).
        rate: share r of the tokens that is taken out, in (0, 1), (B,).
        mean_span: mean length :math:`\mu` of a span, at least 1, (B,).

    Returns:
        m and n, int64 (B,).

    Example:
        >>> [int(count) for count in span_counts(torch.tensor([512]), torch.tensor([0.15]), torch.tensor([3.0]))]
        [77, 26]
    """
    noise = (lengths * rate.double()).round().long().clamp(min=1)
    noise = torch.minimum(noise, lengths - 1)
    spans = (noise / mean_span.double()).round().long().clamp(min=1)
    return noise, torch.minimum(spans, torch.minimum(noise, lengths - noise))


def span_mask(lengths: Tensor, noise: Tensor, spans: Tensor, steps: int, generator: Generator | None = None) -> Tensor:
    """Draw which tokens are taken out: whole spans that never touch, the first token kept, the last one taken.

    The tokens that are taken out are split into spans, and the others into the parts before them, each uniformly among
    all splits into parts of at least one.

    Source: arXiv 1910.10683, released code. Differs from it: none; all sequences of a batch are drawn at once.

    Args:
        lengths: number of tokens of each sequence, int64 (B,).
        noise: number of tokens to take out of each, int64 (B,), in 1..length - 1.
        spans: number of spans of each, int64 (B,), at most ``noise`` and at most length - ``noise``.
        steps: padded number of tokens T.
        generator: source of the random numbers, on the device of the lengths; None for torch's own.

    Returns:
        bool (B, T), false at padding.

    Raises:
        ValueError: if a row is longer than ``steps``, or has more spans than its tokens allow.

    Example:
        >>> mask = span_mask(torch.tensor([8]), torch.tensor([4]), torch.tensor([2]), 8)
        >>> int(mask.sum()), bool(mask[0, 0]), bool(mask[0, 7])
        (4, False, True)
    """
    if lengths.device.type == "cpu":  # on a GPU the check would synchronise
        wrong = (lengths > steps) | (spans < 1) | (spans > noise) | (spans > lengths - noise)
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise ValueError(
                f"row {row} has length {int(lengths[row])} of {steps} steps, {int(noise[row])} tokens to take out and "
                f"{int(spans[row])} spans; lengths are at most the steps, and spans from 1 to the smaller one of the "
                "numbers of tokens that are taken out and kept: see span_counts"
            )
    # of the lowest keys as many are sought as a row may need; on a GPU the largest number would have to be waited for
    most = int(spans.max()) if spans.device.type == "cpu" and len(spans) else max(steps // 2, 1)
    taken = _parts(noise, spans, steps, most, generator)  # (B, T), part of each unit, in order
    kept = _parts(lengths - noise, spans, steps, most, generator)
    # sizes of the parts, kept and taken in turns, give the borders
    before = _sizes(kept, lengths - noise, steps).cumsum(1)  # tokens kept up to span k
    after = _sizes(taken, noise, steps).cumsum(1)  # tokens taken out up to and with span k
    number = torch.arange(steps, device=lengths.device)
    real = number < spans[:, None]
    starts = before + torch.cat([torch.zeros_like(after[:, :1]), after[:, :-1]], 1)
    ends = before + after
    edges = torch.zeros(len(lengths), steps + 1, dtype=torch.int64, device=lengths.device)
    edges.scatter_add_(1, torch.where(real, starts, steps), real.long())
    edges.scatter_add_(1, torch.where(real, ends, steps), -real.long())
    return edges[:, :steps].cumsum(1) > 0


def _parts(total: Tensor, parts: Tensor, steps: int, most: int, generator: Generator | None) -> Tensor:
    """Split ``total`` units of each row into parts of at least one, uniformly; return the part of each unit (B, T)."""
    keys = torch.rand(len(total), steps, generator=generator, device=total.device)
    gap = torch.arange(steps, device=total.device)
    # a part ends after a unit at the gaps with the lowest keys, of which there is one less than units
    lowest = keys.masked_fill(gap >= total[:, None] - 1, 2.0).topk(most, 1, largest=False).indices  # (B, most)
    ends = torch.zeros(len(total), steps, dtype=torch.int64, device=total.device)
    ends.scatter_(1, lowest, (gap[:most] < parts[:, None] - 1).long())
    return ends.cumsum(1) - ends


def _sizes(part: Tensor, total: Tensor, steps: int) -> Tensor:
    """Return the number of units of each part (B, T)."""
    real = torch.arange(steps, device=part.device) < total[:, None]
    return torch.zeros_like(part).scatter_add_(1, torch.where(real, part, 0), real.long())


class Corrupted(NamedTuple):
    """Sequences with their spans taken out, and what was taken out."""

    inputs: Tensor
    input_lengths: Tensor
    targets: Tensor
    target_lengths: Tensor


def corrupt_spans(ids: Tensor, lengths: Tensor, mask: Tensor, first_sentinel: int) -> Corrupted:
    """Replace spans by sentinels; the targets are the sentinels, each followed by its span, and one more at the end.

    Sentinel k stands for span k. ``the quick [s0] fox`` and ``[s0] brown [s1]`` belong together.

    Source: arXiv 1910.10683, figure 2. Differs from it: none.

    Args:
        ids: token numbers (B, T).
        lengths: number of tokens of each row, int64 (B,).
        mask: tokens to take out, of :func:`span_mask`, bool (B, T).
        first_sentinel: token number of the first sentinel; the others follow it.

    Returns:
        inputs (B, T), input lengths (B,), targets (B, T + 1), target lengths (B,); padding is 0.

    Raises:
        ValueError: if ``ids`` and ``mask`` are not of one shape (B, T).

    Example:
        >>> mask = torch.tensor([[False, True, True, False, True]])
        >>> found = corrupt_spans(torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([5]), mask, 9)
        >>> found.inputs[0, :4].tolist(), found.targets[0, :6].tolist()
        ([1, 9, 4, 10], [9, 2, 3, 10, 5, 11])
    """
    if ids.dim() != 2 or mask.shape != ids.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"ids is {tuple(ids.shape)} and mask {mask.dtype} {tuple(mask.shape)}; token numbers (B, T) and a bool "
            "mask of the same shape are needed"
        )
    rows, steps = ids.shape
    before = torch.cat([torch.zeros_like(mask[:, :1]), mask[:, :-1]], 1)
    begins = mask & ~before  # first token of each span
    span = begins.cumsum(1) - 1  # span that a token of the mask belongs to
    inside = torch.arange(steps, device=ids.device) < lengths[:, None]
    stays = inside & (~mask | begins)
    sentinel = (first_sentinel + span).to(ids)
    # all that has no place goes to a last column, which is cut off
    place = torch.where(stays, stays.cumsum(1) - 1, steps)
    inputs = ids.new_zeros(rows, steps + 1).scatter_(1, place, torch.where(begins, sentinel, ids))
    width = steps + 1  # at most half of the tokens are spans of their own, so that all fits
    targets = ids.new_zeros(rows, 2 * steps + 2)
    position = mask.cumsum(1) - 1 + span + 1  # of a token that is taken out: tokens before it, and sentinels up to it
    targets.scatter_(1, torch.where(mask, position, 2 * steps + 1), ids)
    targets.scatter_(1, torch.where(begins, position - 1, 2 * steps + 1), sentinel)
    noise, spans = mask.sum(1), begins.sum(1)
    targets.scatter_(1, (noise + spans)[:, None], (first_sentinel + spans)[:, None].to(targets.dtype))
    return Corrupted(inputs[:, :steps], stays.sum(1), targets[:, :width], noise + spans + 1)


def restore_spans(inputs: list[int], targets: list[int], first_sentinel: int, num_sentinels: int) -> list[int]:
    """Return the tokens of one sequence from what :func:`corrupt_spans` made of it.

    Args:
        inputs: tokens with sentinels in place of spans.
        targets: sentinels, each followed by its span.
        first_sentinel: token number of the first sentinel.
        num_sentinels: number of sentinels.

    Raises:
        ValueError: if the targets do not begin with a sentinel, or lack one of the inputs.

    Example:
        >>> restore_spans([1, 9, 4, 10], [9, 2, 3, 10, 5, 11], 9, 4)
        [1, 2, 3, 4, 5]
    """
    sentinels = range(first_sentinel, first_sentinel + num_sentinels)
    if targets and targets[0] not in sentinels:
        raise ValueError(
            f"targets begin with {targets[0]}; a sentinel, {first_sentinel} to {first_sentinel + num_sentinels - 1}, "
            "stands before each span"
        )
    spans: dict[int, list[int]] = {}
    for token in targets:
        if token in sentinels:
            spans[token] = []
            current = token
        else:
            spans[current].append(token)
    missing = [token for token in inputs if token in sentinels and token not in spans]
    if missing:
        raise ValueError(f"inputs hold the sentinel {missing[0]}, which the targets lack")
    return [each for token in inputs for each in (spans[token] if token in sentinels else [token])]


def plan_length(max_inputs: int, rate: float, mean_span: float) -> int:
    """Return the largest number of tokens of which the inputs take at most ``max_inputs`` places.

    Args:
        max_inputs: largest number of inputs, sentinels included, at least 2.
        rate: share of the tokens that is taken out, in (0, 1).
        mean_span: mean length of a span, at least 1.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> plan_length(512, 0.15, 3.0)
        569
    """
    if max_inputs < 2:
        raise ValueError(f"max_inputs is {max_inputs}; it must be at least 2, one token and one sentinel")
    if not 0 < rate < 1 or not mean_span >= 1:
        raise ValueError(f"rate is {rate} and mean_span {mean_span}; a rate in (0, 1) and at least 1 are needed")
    # one more token adds at most one input, and long sequences lose at least nothing
    most = int(max_inputs / (1 - rate)) + 2
    lengths = torch.arange(2, most + 1)
    noise, spans = span_counts(lengths, torch.tensor(rate), torch.tensor(mean_span))
    fits = lengths - noise + spans <= max_inputs
    return int(lengths[fits].max())
