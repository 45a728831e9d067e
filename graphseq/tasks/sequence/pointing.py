"""Training of networks that answer with positions of their input."""

from typing import Literal, Unpack, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric, MetricCollection

from graphseq.core.batches import IGNORED, batch_field
from graphseq.core.errors import DataError
from graphseq.core.protocols import PointingNetwork, missing_members
from graphseq.core.wrappers import unwrapped
from graphseq.metrics.pointing.polygons import AreaCoverage, PolygonAccuracy, SimplePolygonRate
from graphseq.metrics.pointing.positions import ExactMatch
from graphseq.metrics.pointing.tours import TourGap, TourLength, ValidTourRate
from graphseq.metrics.pointing.triangles import TriangleAccuracy, TriangleCoverage
from graphseq.tasks.base import Stage, Step, Task, TaskOptions
from graphseq.tasks.predictions import Column, PredictionRows
from graphseq.tasks.sequence.classification import checked_lengths

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


class Pointing(Task[object]):
    r"""Minimise the cross-entropy between true positions and the network's logits, each from the positions before it.

    .. math:: L = -\frac{1}{\sum_b m_b} \sum_b \sum_{i=1}^{m_b} \log p(C_{bi} \mid C_{b1}, \dots, C_{b,i-1}, P_b)

    where the last position of an output is the end, if the network writes one. Evaluation decodes freely, by beam
    search, and measures what the problem asks for; the loss of an evaluation is under teacher forcing.

    Procedure:
        1. logits of all steps from the true outputs (teacher forcing); 2. cross-entropy over the steps that count; 3.
        one step of the optimiser. Validation and test: 1. the same loss; 2. :meth:`PointerNet.decode`; 3. metrics of
        the decoded outputs.

    Logs:
        ``<stage>/loss``; of val and test ``acc``, the share of right answers, and for the problem ``hull`` the share
        of the hull's ``area`` over ``simple`` polygons and the rate of these, for ``delaunay`` the ``coverage`` of
        triangles, for ``tour`` the ``length``, the ``gap`` to the shortest tour, and the rate of ``valid`` tours.

    Source: arXiv 1506.03134, eq. 1 and 2, section 4. Differs from it: none.

    Args:
        model: network that writes positions, such as :class:`graphseq.models.PointerNet`.
        problem: what an output means: ``positions`` in an order that counts, the corners of a convex ``hull``, the
            triangles of a ``delaunay`` triangulation, or a closed ``tour``.
        beam_size: number of partial outputs of the beam search in evaluations, at least 1.
        mask: constraint of decoding: ``none``, or ``visited`` to forbid positions that are written already, which makes
            every output of a tour valid.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if an argument is outside its range; in a step, if the network has another number of positions than
            the batch.
        TypeError: if the network does not decode.
        DataError: in a step, if the batch has no lengths or no outputs, or a position is out of range.

    Example:
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
        mask: Literal["none", "visited"] = "none",
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, **options)
        missing = missing_members(unwrapped(model), PointingNetwork)
        if missing:
            raise TypeError(
                f"{type(unwrapped(model)).__name__} has no {', '.join(missing)}; give a network that writes positions, "
                "such as graphseq.models.PointerNet"
            )
        for name, value, known in (("problem", problem, get_args(Problem)), ("mask", mask, ("none", "visited"))):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}")
        if beam_size < 1:
            raise ValueError(f"beam_size is {beam_size}; it must be at least 1")
        self.problem: Problem = problem
        self.beam_size = beam_size
        self.mask = mask

    def configure_metrics(self) -> MetricCollection:
        """Return the metrics of the problem."""
        # metrics of one group would share states that happen to be equal after the first batch
        return MetricCollection({name: kind() for name, kind in _METRICS[self.problem].items()}, compute_groups=False)

    @property
    def network(self) -> PointingNetwork:
        """The network without wrappers, such as that of ``torch.compile``."""
        network = unwrapped(self.model)
        assert isinstance(network, PointingNetwork)  # checked in the constructor
        return network

    def step(self, batch: object, stage: Stage = "train") -> Step:
        """Return the cross-entropy of the outputs; in evaluations the prediction is the decoded outputs.

        Args:
            batch: ``SequenceBatch``, or another batch with ``x`` (B, n, D), ``lengths`` and ``y`` int64 (B, m), -100
                after the last position of each output.
            stage: stage of the run.
        """
        lengths = checked_lengths(batch)
        x, y = batch_field(batch, "x"), _checked_outputs(batch_field(batch, "y"), lengths)
        logits = self.model(x, lengths, y)  # (B, M, n + 1)
        if logits.shape[2] != x.shape[1] + 1:
            raise ValueError(
                f"{type(self.network).__name__} has {logits.shape[2] - 1} output symbols, the batch {x.shape[1]} "
                "positions; a network with a fixed set of symbols answers for one number of points only: train one for "
                "each, or take graphseq.models.PointerNet"
            )
        slots = self.network.slots(y)
        wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        total = functional.cross_entropy(wide.flatten(0, 1), slots.flatten(), ignore_index=IGNORED, reduction="sum")
        size = (slots != IGNORED).sum()
        loss = total / size
        if stage == "train":
            return Step(loss, logits, slots, size)
        return Step(loss, self.decoded(x, lengths), y, size, metric_arguments={"points": x, "lengths": lengths})

    def decoded(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the outputs that the network writes, int64 (B, M), -100 after the last position of each.

        Args:
            x: inputs (B, n, D).
            lengths: number of points of each set, int64 (B,).
        """
        longest = _LONGEST[self.problem] * x.shape[1]
        return self.network.decode(x, lengths, self.beam_size, self.mask, longest)[0]

    def predict_step(self, batch: object, batch_idx: int) -> Tensor:
        """Return the outputs that the network writes for a batch."""
        return self.decoded(batch_field(batch, "x"), checked_lengths(batch))

    def prediction_rows(self, batch: object, output: Tensor, split: str, data: object = None) -> PredictionRows:
        """Return one row for each set, with the positions of its output separated by blanks.

        Args:
            batch: ``SequenceBatch``, or another batch with ``x`` and ``lengths``, with or without ``y``.
            output: decoded outputs.
            split: name of the split.
            data: data module, which is not read.
        """
        target = batch_field(batch, "y")
        known: dict[str, Column] = {"target": _texts(target)} if isinstance(target, Tensor) else {}
        return PredictionRows({**known, "prediction": _texts(output)})


def _texts(sequences: Tensor) -> list[str]:
    return [" ".join(str(place) for place in row if place >= 0) for row in sequences.tolist()]


def _checked_outputs(y: object, lengths: Tensor) -> Tensor:
    if not isinstance(y, Tensor) or y.dim() != 2 or y.is_floating_point() or len(y) != len(lengths):
        given = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else "missing"
        raise DataError(f"y is {given}; outputs must be integers ({len(lengths)}, m), -100 after the last position")
    # on a GPU the check would synchronise
    if y.device.type == "cpu":
        wrong = ((y >= lengths[:, None]) | (y < 0)) & (y != IGNORED)
        if bool(wrong.any()):
            row = int(wrong.any(1).nonzero()[0])
            raise DataError(
                f"y[{row}] holds {int(y[row][wrong[row]][0])}; positions of this input are 0..{int(lengths[row]) - 1}, "
                "and -100 stands after the last one"
            )
    return y.long()
