"""How much to prune, rewire or penalise as training goes on."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal

__all__ = ["drop_fraction", "gradual_sparsity", "progressive_weight"]


def _check(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} is {value}; it must be in [0, 1]")


def drop_fraction(
    progress: float, initial: float, decay: Literal["constant", "cosine", "linear"] = "constant"
) -> float:
    r"""Return the share of the weights that an update replaces.

    ``constant``: :math:`\alpha`; ``cosine``: :math:`\frac{\alpha}{2} (1 + \cos \pi t)`; ``linear``:
    :math:`\alpha (1 - t)`.

    Source: arXiv 1911.11134, section 3 (``cosine``).

    Args:
        progress: share t of the updating phase that is over, in [0, 1].
        initial: share :math:`\alpha` at the start, in [0, 1].
        decay: course over time.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> drop_fraction(0.5, 0.3, "cosine")
        0.15
    """
    _check("progress", progress)
    _check("initial", initial)
    if decay not in ("constant", "cosine", "linear"):
        raise ValueError(f"decay is {decay!r}; it must be 'constant', 'cosine' or 'linear'")
    if decay == "constant":
        return initial
    return initial * (1.0 - progress) if decay == "linear" else 0.5 * initial * (1.0 + math.cos(math.pi * progress))


def gradual_sparsity(progress: float, final: float, initial: float = 0.0, power: float = 3.0) -> float:
    r"""Return the sparsity at a point of gradual pruning, fast at first and slow towards the end.

    .. math:: s(t) = s_f + (s_i - s_f)\,(1 - t)^{p}

    Source: arXiv 1710.01878, eq. 1, with p = 3.

    Args:
        progress: share t of the pruning phase that is over, in [0, 1].
        final: sparsity :math:`s_f` at the end, in [0, 1].
        initial: sparsity :math:`s_i` at the start, in [0, 1].
        power: exponent p, above 0; 1 is linear.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> [round(gradual_sparsity(t, 0.8), 3) for t in (0.0, 0.5, 1.0)]
        [0.0, 0.7, 0.8]
    """
    for name, value in {"progress": progress, "final": final, "initial": initial}.items():
        _check(name, value)
    if not power > 0:
        raise ValueError(f"power is {power}; it must be above 0")
    return final + (initial - final) * (1.0 - progress) ** power


def check_stages(stages: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """Return stages as a list of pairs, after a check that weights are not negative and ends increase.

    Args:
        stages: weight at the end of each stage, and the step at which it ends.

    Raises:
        ValueError: if there are no stages, a weight is negative or not finite, or ends do not increase from 0 on.

    Example:
        >>> check_stages([[0, 100], [0.1, 200]])
        [(0.0, 100), (0.1, 200)]
    """
    if not stages or any(not isinstance(stage, Sequence) or len(stage) != 2 for stage in stages):
        raise ValueError(f"stages is {stages}; give at least one pair (weight, last step)")
    for weight, _ in stages:
        if not 0.0 <= weight < float("inf"):
            raise ValueError(f"stages has the weight {weight}; weights must be finite and at least 0")
    ends = [int(end) for _, end in stages]
    if ends[0] < 0 or any(after <= before for before, after in itertools.pairwise(ends)):
        raise ValueError(f"stages end at the steps {ends}; they must increase, from at least 0 on")
    return [(float(weight), end) for (weight, _), end in zip(stages, ends, strict=True)]


def progressive_weight(step: int, stages: Sequence[tuple[float, int]]) -> float:
    r"""Return the weight of a penalty that grows in stages.

    The first two stages have constant weights :math:`\lambda_0` (0, while a network gets used to another activation)
    and :math:`\lambda_1` (warm-up); from then on

    .. math:: \lambda(t) = \lambda_{i-1} + \tfrac{1}{2} (\lambda_i - \lambda_{i-1})
        \left(1 + \sin\bigl(-\tfrac{\pi}{2} + \pi \tfrac{t - T_{i-1}}{T_i - T_{i-1}}\bigr)\right),
        \qquad T_{i-1} \le t < T_i

    and :math:`\lambda_S` after the last stage. Stages of equal weights are plateaus.

    Source: arXiv 2402.13516, section 3.2. Differs from it: none that is known; the formula is taken from memory of the
    paper.

    Args:
        step: number t of steps that are over, at least 0.
        stages: weight :math:`\lambda_i` at the end of each stage, and the step :math:`T_i` at which it ends.

    Raises:
        ValueError: if ``step`` is negative, or stages are wrong, see :func:`check_stages`.

    Example:
        >>> stages = [(0.0, 100), (0.1, 200), (0.5, 400)]
        >>> [round(progressive_weight(step, stages), 3) for step in (99, 100, 200, 300, 400, 500)]
        [0.0, 0.1, 0.1, 0.3, 0.5, 0.5]
    """
    stages = check_stages(stages)
    if step < 0:
        raise ValueError(f"step is {step}; it must be at least 0")
    number = next((number for number, (_, end) in enumerate(stages) if step < end), len(stages))
    if number < 2 or number == len(stages):
        return stages[min(number, len(stages) - 1)][0]
    (before, begin), (after, end) = stages[number - 1], stages[number]
    return before + 0.5 * (after - before) * (1.0 + math.sin(math.pi * ((step - begin) / (end - begin) - 0.5)))
