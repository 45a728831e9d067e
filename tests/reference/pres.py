"""PRES over lists, node by node and number by number in float64."""

import math

Vector = list[float]


class Tracker:
    """Every observed rate of every node and component, kept in a list and averaged when asked."""

    def __init__(self, rate="update", estimator="ratio", time_scale=1.0, step_min=0.05, step_max=5.0):
        self.rate, self.estimator, self.time_scale = rate, estimator, time_scale
        self.step_min, self.step_max = step_min, step_max
        self.observed: dict[tuple[int, int], list[tuple[float, float, Vector]]] = {}

    def step(self, elapsed, num_events):
        if self.rate == "update":
            return 1.0
        return float(num_events) if self.rate == "event" else elapsed / self.time_scale

    def observe(self, node, previous, corrected, type_counts, elapsed=0.0, num_events=1):
        """One update of one node: (share of the component, weight, rate) of each component that took part."""
        step = max(self.step(elapsed, num_events), self.step_min)
        change = [(after - before) / step for before, after in zip(previous, corrected, strict=True)]
        for j, number in enumerate(type_counts):
            if number:
                share = number / sum(type_counts)
                weight = share * (step if self.estimator == "ratio" else 1.0)
                self.observed.setdefault((node, j), []).append((share, weight, change))

    def count(self, node, j):
        return sum(share for share, _, _ in self.observed.get((node, j), []))

    def moments(self, node, j, dim):
        kept = self.observed.get((node, j), [])
        if not kept:
            return [0.0] * dim, [0.0] * dim
        total = sum(weight for _, weight, _ in kept)
        mean = [sum(weight * change[k] for _, weight, change in kept) / total for k in range(dim)]
        # about the mean, not by the difference of squares
        variance = [sum(weight * (change[k] - mean[k]) ** 2 for _, weight, change in kept) / total for k in range(dim)]
        return mean, variance

    def predict(self, node, previous, num_components, type_counts=None, elapsed=0.0, num_events=1):
        """The extrapolated memory, or None where nothing was observed."""
        shares = []
        for j in range(num_components):
            seen = self.count(node, j)
            shares.append(seen if type_counts is None else (type_counts[j] if seen else 0))
        if not sum(shares):
            return None
        step = self.step(elapsed, num_events)
        if self.rate == "time":
            step = min(max(step, 0.0), self.step_max)
        predicted = list(previous)
        for j in range(num_components):
            mean, _ = self.moments(node, j, len(previous))
            for k in range(len(previous)):
                predicted[k] += step * shares[j] / sum(shares) * mean[k]
        return predicted

    def correct(self, gamma, measured, predicted):
        if predicted is None:
            return list(measured)
        return [gamma * s + (1 - gamma) * p for s, p in zip(measured, predicted, strict=True)]


def _cosine(a: Vector, b: Vector, eps: float) -> float:
    inner = sum(x * y for x, y in zip(a, b, strict=True))
    return inner / (max(math.sqrt(sum(x * x for x in a)), eps) * max(math.sqrt(sum(y * y for y in b)), eps))


def coherence_loss(previous, corrected, mask, mode, eps=1e-8) -> float:
    rows = [i for i in range(len(previous)) if mask[i] and any(x != 0 for x in previous[i])]
    if not rows:
        return 0.0
    if mode == "global":
        before = [x for i in rows for x in previous[i]]
        after = [x for i in rows for x in corrected[i]]
        return 1 - _cosine(before, after, eps)
    return sum(1 - _cosine(previous[i], corrected[i], eps) for i in rows) / len(rows)


def pending(src, dst, t=None) -> list[int]:
    """The size of the pending set of each event, every pair looked at."""
    time = list(range(len(src))) if t is None else t
    sizes = []
    for e in range(len(src)):
        size = 0
        for other in range(len(src)):
            if time[other] < time[e] and {src[other], dst[other]} & {src[e], dst[e]}:
                size += 1
        sizes.append(size)
    return sizes


def memory_coherence(fresh: Vector, stale: list[Vector]) -> float:
    if not stale:
        return 1.0
    norm = sum(x * x for x in fresh)
    return min(sum(x * y for x, y in zip(old, fresh, strict=True)) / norm for old in stale)
