"""Comparing the outputs of contenders before any of them is timed."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from graphseq.bench.experiment import Row

__all__ = ["OutputsDiffer", "same_batches", "same_outputs"]


class OutputsDiffer(RuntimeError):
    """Raised by a comparison: contenders that give different outputs are not timed.

    Example:
        >>> raise OutputsDiffer("batch 3 differs in edge_index")
        Traceback (most recent call last):
        graphseq.bench.speeds.comparison.OutputsDiffer: batch 3 differs in edge_index
    """


def same_outputs(rtol: float = 1e-4, atol: float = 1e-5) -> Callable[[Any, Mapping[str, Callable[[], Any]]], Row]:
    """Return a comparison for calls that return their outputs: tensors, numbers, or sequences of these.

    Args:
        rtol: relative tolerance.
        atol: absolute tolerance.

    Returns:
        A function for ``Speed(equal=…)`` that compares all contenders with the first.

    Example:
        >>> same_outputs()(None, {"ours": lambda: 1.0, "peer": lambda: 2.0})
        Traceback (most recent call last):
        graphseq.bench.speeds.comparison.OutputsDiffer: output 0 of peer differs from that of ours by 1
    """

    def compare(subject: Any, calls: Mapping[str, Callable[[], Any]]) -> Row:
        import torch

        first, *others = calls
        expected = _leaves(calls[first]())
        largest = 0.0
        for name in others:
            found = _leaves(calls[name]())
            if len(found) != len(expected):
                raise OutputsDiffer(f"{name} gives {len(found)} outputs, {first} {len(expected)}")
            for place, (one, other) in enumerate(zip(expected, found, strict=True)):
                one, other = torch.as_tensor(one), torch.as_tensor(other)
                if one.shape != other.shape:
                    raise OutputsDiffer(
                        f"output {place} of {name} has shape {tuple(other.shape)}, that of {first} {tuple(one.shape)}"
                    )
                difference = float((one.double() - other.double()).abs().max()) if one.numel() else 0.0
                if not torch.allclose(one.double(), other.double(), rtol=rtol, atol=atol):
                    raise OutputsDiffer(f"output {place} of {name} differs from that of {first} by {difference:g}")
                largest = max(largest, difference)
        return {"difference": largest}

    return compare


def _leaves(value: Any) -> list[Any]:
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, list | tuple) else [value]


def same_batches(
    ours: Iterable[Any], peer: Iterable[Any], fields: Callable[[Any], Mapping[Any, Any]] = lambda b: dict(enumerate(b))
) -> None:
    """Compare the batches of two loaders one by one: fields, types and values, on the CPU.

    Args:
        ours: our batches.
        peer: batches of the peer, in the same order.
        fields: function that returns the fields of a batch by name; those of a sequence by default.

    Raises:
        OutputsDiffer: if a field of a batch differs, or one side has more batches.

    Example:
        >>> import torch
        >>> same_batches([(torch.ones(2), 3)], [(torch.ones(2), 4)])
        Traceback (most recent call last):
        graphseq.bench.speeds.comparison.OutputsDiffer: batch 0 differs in 1
    """
    missing = object()
    for number, (one, other) in enumerate(itertools.zip_longest(ours, peer, fillvalue=missing)):
        if one is missing or other is missing:
            raise OutputsDiffer(f"{'ours' if one is missing else 'the peer'} ends before batch {number}")
        found, expected = fields(one), fields(other)
        names = dict.fromkeys([*expected, *found])
        different = [str(name) for name in names if not _same(found.get(name, missing), expected.get(name, missing))]
        if different:
            raise OutputsDiffer(f"batch {number} differs in {', '.join(different)}")


def _same(one: Any, other: Any) -> bool:
    import torch

    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.cpu(), other.cpu())
    return type(one) is type(other) and bool(one == other)
