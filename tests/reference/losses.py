"""Losses over nested lists, number by number in float64; None is a label nobody knows."""

import math

Matrix = list[list[float]]


def log_softmax(row: list[float]) -> list[float]:
    top = max(row)
    total = 0.0
    for value in row:
        total += math.exp(value - top)
    return [value - top - math.log(total) for value in row]


def cross_entropy(
    logits: Matrix, labels: list[int], weights: list[float] | None = None, smoothing: float = 0.0
) -> tuple[float, float]:
    """The weighted mean and what it was divided by."""
    above = below = 0.0
    for row, label in zip(logits, labels, strict=True):
        scores = log_softmax(row)
        for k, score in enumerate(scores):
            share = smoothing / len(scores) + (1 - smoothing if k == label else 0.0)
            above -= share * score * (weights[k] if weights else 1.0)
        below += weights[label] if weights else 1.0
    return (above / below if below else 0.0), below


def binary_cross_entropy(
    logits: Matrix, labels: list[list[int | None]], positive: list[float] | None = None
) -> tuple[float, int]:
    """The mean over known labels and their number."""
    total, count = 0.0, 0
    for row, known in zip(logits, labels, strict=True):
        for k, (value, label) in enumerate(zip(row, known, strict=True)):
            if label is None:
                continue
            p = 1 / (1 + math.exp(-value))
            total -= math.log(p) * (positive[k] if positive else 1.0) if label else math.log(1 - p)
            count += 1
    return (total / count if count else 0.0), count


def errors(outputs: Matrix, targets: list[list[float | None]]) -> list[float]:
    """Differences to the known targets."""
    found = []
    for row, known in zip(outputs, targets, strict=True):
        for value, target in zip(row, known, strict=True):
            if target is not None:
                found.append(value - target)
    return found


def mean_squared(outputs: Matrix, targets: list[list[float | None]]) -> float:
    found = errors(outputs, targets)
    total = 0.0
    for value in found:
        total += value * value
    return total / len(found) if found else 0.0


def mean_absolute(outputs: Matrix, targets: list[list[float | None]]) -> float:
    found = errors(outputs, targets)
    total = 0.0
    for value in found:
        total += abs(value)
    return total / len(found) if found else 0.0
