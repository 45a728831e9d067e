"""Training of networks whose outputs are positions of their input."""

from typing import Any, Literal, Unpack, get_args

from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from graphseq.core.batches import IGNORED
from graphseq.core.errors import DataError
from graphseq.metrics.pointing.polygons import AreaCoverage, PolygonAccuracy, SimplePolygonRate
from graphseq.metrics.pointing.positions import ExactMatch
from graphseq.metrics.pointing.tours import TourGap, TourLength, ValidTourRate
from graphseq.metrics.pointing.triangles import TriangleAccuracy, TriangleCoverage
from graphseq.tasks.base import TaskOptions
from graphseq.tasks.sequence.writing import Constraint, WritingTask

__all__ = ["Pointing"]

Problem = Literal["positions", "hull", "delaunay", "tour"]

_METRICS: dict[str, dict[str, type[Metric]]] = {
    "positions": {"acc": ExactMatch},
    "hull": {"acc": PolygonAccuracy, "area": AreaCoverage, "simple": SimplePolygonRate},
    "delaunay": {"acc": TriangleAccuracy, "coverage": TriangleCoverage},
    "tour": {"acc": PolygonAccuracy, "length": TourLength, "gap": TourGap, "valid": ValidTourRate},
}
# most positions of an answer for each point, an end left out: two triangles a point have six corners
_LONGEST = {"positions": 2, "hull": 1, "delaunay": 6, "tour": 1}


class Pointing(WritingTask):
    r"""Minimise the cross-entropy between true positions and the network's logits, each from the positions before it.

    .. math:: L = -\frac{1}{\sum_b m_b} \sum_b \sum_{i=1}^{m_b} \log p(C_{bi} \mid C_{b1}, \dots, C_{b,i-1}, P_b)

    where the last position of an output is the end symbol, if the network writes one. Evaluation decodes by beam search
    and computes the metrics of the problem; the loss of an evaluation is under teacher forcing.

    Procedure:
        1. logits of all steps from the true outputs (teacher forcing); 2. cross-entropy over the steps that count; 3.
        one step of the optimiser. Validation and test: 1. the same loss; 2. :meth:`PointerNet.decode`; 3. metrics of
        the decoded outputs.

    Logs:
        ``<stage>/loss``; of val and test ``acc``, the share of correct outputs, and for the problem ``hull`` the share
        of the hull's ``area`` over ``simple`` polygons and the rate of these, for ``delaunay`` the ``coverage`` of
        triangles, for ``tour`` the ``length``, the ``gap`` to the shortest tour, and the rate of ``valid`` tours.

    Source: arXiv 1506.03134, eq. 1 and 2, section 4. Differs from it: none.

    Args:
        model: network that writes positions, such as :class:`graphseq.models.PointerNet`.
        problem: meaning of an output: ``positions`` in a fixed order, the corners of a convex ``hull``, the triangles
            of a ``delaunay`` triangulation, or a closed ``tour``.
        beam_size: number of partial outputs of the beam search in evaluations, at least 1.
        mask: constraint of decoding: ``none``, or ``visited`` to forbid positions that were written before, which makes
            every output of a tour valid.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if an argument is outside its range; in a step, if the network has another number of positions than
            the batch.
        TypeError: if the network does not decode.
        DataError: in a step, if the batch has no lengths or no outputs, or a position is out of range.

    Example:
        >>> import torch
        >>> from graphseq.core import SequenceBatch
        >>> from graphseq.models import PointerNet
        >>> task = Pointing(PointerNet(2, 8), problem="hull")
        >>> batch = SequenceBatch(torch.rand(1, 4, 2), torch.tensor([4]), torch.tensor([[0, 1, 2]]))
        >>> int(task.step(batch, "train").size)
        4
    """

    def __init__(
        self,
        model: nn.Module,
        problem: Problem = "positions",
        *,
        beam_size: int = 1,
        mask: Constraint = "none",
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, beam_size, mask, **options)
        if problem not in get_args(Problem):
            raise ValueError(f"problem is {problem!r}; it must be one of {', '.join(get_args(Problem))}")
        self.problem: Problem = problem

    def configure_metrics(self) -> MetricCollection:
        """Return the metrics of the problem."""
        # metrics of one group would share states that happen to be equal after the first batch
        return MetricCollection({name: kind() for name, kind in _METRICS[self.problem].items()}, compute_groups=False)

    def checked_outputs(self, y: Tensor, lengths: Tensor) -> None:
        """Check that positions are those of the input.

        Args:
            y: positions int64 (B, M), -100 after the last of each.
            lengths: number of points of each set, int64 (B,).
        """
        wrong = ((y >= lengths[:, None]) | (y < 0)) & (y != IGNORED)
        if bool(wrong.any()):
            row = int(wrong.any(1).nonzero()[0])
            raise DataError(
                f"y[{row}] holds {int(y[row][wrong[row]][0])}; positions of this input are 0..{int(lengths[row]) - 1}, "
                "and -100 stands after the last one"
            )

    def checked_logits(self, logits: Tensor, x: Tensor) -> None:
        """Check that the network has a slot for each position.

        Args:
            logits: logits of all steps (B, M, S + 1).
            x: inputs (B, n, D).
        """
        if logits.shape[2] != x.shape[1] + 1:
            raise ValueError(
                f"{type(self.network).__name__} has {logits.shape[2] - 1} output symbols, the batch {x.shape[1]} "
                "positions; a network with a fixed set of symbols handles one number of points only: train one for "
                "each, or use graphseq.models.PointerNet"
            )

    def max_steps(self, x: Tensor) -> int:
        """Return the largest number of positions of an output.

        Args:
            x: inputs (B, n, D).
        """
        return _LONGEST[self.problem] * x.shape[1]

    def metric_arguments(self, x: Tensor, lengths: Tensor) -> dict[str, Any]:
        """Return the points, which the metrics of polygons, triangles and tours need.

        Args:
            x: inputs (B, n, D).
            lengths: number of points of each set, int64 (B,).
        """
        return {"points": x, "lengths": lengths}
