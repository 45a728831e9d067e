"""Alignment of representations by moments, batch by batch, and by kernels over all samples.

Two representations of 64 features in float32, the second a rotation of the first with noise, around a mean of 100, in
batches of 256. *streaming*: ``FeatureAlignment``, updated with each batch, and its value. *n x n*: both kernels in
float64, centred in place, and their three products, of all samples at once. Both biased and unbiased values are
computed by the first, whose moments serve both; the second computes the one that is asked for.

Before anything is timed, the values are compared: they must be equal to 1e-10.

Rule, on one thread, medians: (1) at the largest number of samples of the scale the peak memory that streaming adds is
at most 2 MB above that at the smallest; (2) the time of streaming grows at most with the power 1.2 of the samples; (3)
streaming is at least as fast for 4,000 samples or more. The ratios of time and memory are reported.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphseq.bench import AtLeast, Call, Check, OutputsDiffer, Row, Scale, Setting, Speed, combinations
from graphseq.metrics import FeatureAlignment

_FEATURES, _BATCH = 64, 256
_SAMPLES = {"quick": (256, 512), "default": (1000, 2000, 4000, 8000), "full": (1000, 2000, 4000, 8000, 16000)}


@dataclass
class Subject:
    """Two representations, and whether the unbiased value is asked for."""

    x: Tensor  # (n, 64)
    y: Tensor
    unbiased: bool


def cases(scale: Scale) -> list[Row]:
    """Return both values for each number of samples."""
    return combinations(value=["biased", "unbiased"], samples=list(_SAMPLES[scale]))


def prepare(case: Row, setting: Setting) -> Subject:
    """Draw the representations."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(case["samples"], _FEATURES, generator=generator)
    rotation = torch.linalg.qr(torch.randn(_FEATURES, _FEATURES, generator=generator)).Q
    y = x @ rotation + 0.5 * torch.randn(case["samples"], _FEATURES, generator=generator)
    return Subject((x + 100).to(setting.device), (y + 100).to(setting.device), case["value"] == "unbiased")


def streaming(subject: Subject) -> Call:
    """Return the metric over the batches."""
    metric = FeatureAlignment(_FEATURES, _FEATURES, unbiased=subject.unbiased).to(subject.x.device)

    def call() -> Tensor:
        metric.reset()
        for x, y in zip(subject.x.split(_BATCH), subject.y.split(_BATCH), strict=True):
            metric.update(x, y)
        return metric.compute()

    return call


def _centred(features: Tensor, hollow: bool) -> Tensor:
    features = features.double()
    features = features - features.mean(0)
    kernel = features @ features.T
    return kernel.fill_diagonal_(0) if hollow else kernel


def kernels(subject: Subject) -> Call:
    """Return the quotient of products of two kernels over all samples."""
    n = len(subject.x)

    def product(one: Tensor, other: Tensor) -> Tensor:
        value = torch.dot(one.flatten(), other.flatten())
        if not subject.unbiased:
            return value
        rows, others = one.sum(0), other.sum(0)
        return value + rows.sum() * others.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows @ others

    def call() -> Tensor:
        one, other = (_centred(features, subject.unbiased) for features in (subject.x, subject.y))
        return product(one, other) / (product(one, one) * product(other, other)).sqrt()

    return call


def same(subject: Subject, calls: Mapping[str, Call]) -> Row:
    """Compare the values.

    Raises:
        OutputsDiffer: if they differ by more than 1e-10.
    """
    ours, theirs = (float(calls[name]()) for name in ("streaming", "n x n"))
    if not abs(ours - theirs) <= 1e-10:
        raise OutputsDiffer(f"streaming gives {ours:.15g}, the kernels {theirs:.15g}")
    return {"difference": abs(ours - theirs)}


def _ends(rows: Sequence[Row], value: Callable[[Row], float | None]) -> list[tuple[str, Row, Row]]:
    found = []
    for kind in ("biased", "unbiased"):
        there = sorted((row for row in rows if row["value"] == kind and value(row)), key=lambda row: row["samples"])
        if len(there) > 1:
            found.append((kind, there[0], there[-1]))
    return found


def memory(rows: Sequence[Row]) -> list[Check]:
    """Check that the memory of streaming does not grow with the samples."""
    checks = []
    for kind, first, last in _ends(rows, lambda row: (row.get("peak_mb") or {}).get("n x n")):
        more = (last["peak_mb"]["streaming"] or 0.0) - (first["peak_mb"]["streaming"] or 0.0)
        text = f"{kind}: peak memory of streaming, {last['samples']} less {first['samples']} samples, at most 2 MB"
        checks.append(Check(text, more, 2.0, more <= 2.0))
    return checks


def growth(rows: Sequence[Row]) -> list[Check]:
    """Check the power of the samples with which the time of streaming grows."""
    checks = []
    for kind, first, last in _ends(rows, lambda row: row["ms"]["streaming"]):
        times = last["ms"]["streaming"] / first["ms"]["streaming"]
        power = math.log(times) / math.log(last["samples"] / first["samples"])
        checks.append(Check(f"{kind}: time of streaming grows at most with the power 1.2", power, 1.2, power <= 1.2))
    return checks


speed = Speed(
    name="speed.cka",
    protocol=__doc__ or "",
    cases=cases,
    prepare=prepare,
    contenders={"streaming": streaming, "n x n": kernels},
    equal=same,
    memory=True,
    columns=["difference"],
    claims=[
        memory,
        growth,
        *(AtLeast("streaming/n x n", 1.0, where={"samples": samples}) for samples in (4000, 8000)),
    ],
)
