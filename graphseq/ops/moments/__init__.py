"""The moments of PRES, Eq. 7 (prediction) and Eq. 9 (running sums): ``plain`` states them, ``compiled`` is fast."""

from torch import Tensor

from graphseq.ops.moments import compiled, plain
from graphseq.ops.moments.plain import RunningSums
from graphseq.ops.moments.plain import mixture as mixture
from graphseq.ops.moments.plain import moments as moments
from graphseq.ops.processor import use_compiled

__all__: list[str] = []


def extrapolate(
    nodes: Tensor, previous: Tensor, step: Tensor, type_counts: Tensor | None, sums: RunningSums
) -> tuple[Tensor, Tensor]:
    """Return the extrapolated memories (Eq. 7), see :func:`graphseq.ops.moments.plain.extrapolate`."""
    form = compiled if use_compiled(previous, sums.updates) else plain
    return form.extrapolate(nodes, previous, step, type_counts, sums)


def track(
    nodes: Tensor,
    previous: Tensor,
    corrected: Tensor,
    pending: Tensor,
    step: Tensor,
    share: Tensor,
    sums: RunningSums,
    *,
    by_step: bool,
    decay: float,
) -> None:
    """Add observed changes to the running sums (Eq. 9), see :func:`graphseq.ops.moments.plain.track`."""
    form = compiled if use_compiled(previous, corrected, sums.updates) else plain
    form.track(nodes, previous, corrected, pending, step, share, sums, by_step=by_step, decay=decay)
