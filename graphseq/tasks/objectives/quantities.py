"""Targets that are numbers, of which some are missing: point predictions and quantiles."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from graphseq.metrics.quantiles import MeanPinballLoss
from graphseq.metrics.regression import MaskedMeanAbsoluteError, MaskedRootMeanSquaredError
from graphseq.ops.losses.quantiles import pinball_loss
from graphseq.tasks.objectives.objective import Objective, check_outputs, named_columns, reshaped, wide
from graphseq.tasks.predictions import Column

__all__ = ["Numbers", "Quantiles"]


@dataclass(frozen=True)
class Numbers(Objective):
    r"""Numbers, of which some are missing (NaN): any loss over the known ones; mean absolute and root squared error.

    .. math:: L = \frac{1}{|M|} \sum_{(b,k) \in M} \ell(f_{bk}, y_{bk}),
        \quad M = \{(b,k) : y_{bk} \text{ is a number}\}

    Args:
        num_outputs: numbers K of a sample, at least 1; None for no check of the network's width.
        measure: module from outputs and targets to the loss, default squared error. For :meth:`loss` it returns a
            mean, and gets tensors (B, K) if all targets of a batch are known, else only the known entries, flat; for
            :meth:`sample_losses` it returns the loss of each entry (``reduction="none"``).

    Shape:
        output (B, K) or (B,), target of the same shape, or flat (B K,) as PyG joins targets (K,) of graphs

    Raises:
        ValueError: if ``num_outputs`` is below 1.
        DataError: in a step, if target and output differ in shape.

    Example:
        >>> loss, size = Numbers().loss(torch.zeros(2, 1), torch.tensor([[3.0], [float("nan")]]))
        >>> float(loss), size
        (9.0, 1)
    """

    num_outputs: int | None = None
    measure: nn.Module = field(default_factory=nn.MSELoss)

    def __post_init__(self) -> None:
        """Check the arguments."""
        if self.num_outputs is not None:
            check_outputs(self.num_outputs, 1, "regression")

    def align(self, output: Tensor, target: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Return predictions and targets of one shape, (B, K).

        Args:
            output: output of the network.
            target: target numbers, NaN where unknown.
            network: network, named in error messages.
        """
        # in half precision the targets would be rounded, and a sum of squares overflows
        prediction = wide(output, network)
        if prediction.dim() == 1:
            prediction = prediction.unsqueeze(1)
        expected = "" if self.num_outputs is None else f" with num_outputs={self.num_outputs}"
        target = reshaped(target, prediction, "targets", expected, self.num_outputs in (None, prediction.size(1)))
        return prediction, target

    def loss(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, int]:
        """Return the mean loss over known targets, 0 if there are none, and their number.

        Args:
            prediction: predictions of any shape.
            target: targets of the same shape, NaN where unknown.
        """
        known = ~torch.isnan(target)
        size = int(known.sum())  # the selection of known targets would synchronise as well
        if size == 0:
            return torch.where(known, prediction, 0).sum(), size
        if size == target.numel():
            return self.measure(prediction, target), size
        return self.measure(prediction[known], target[known]), size

    def sample_losses(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses over known targets of each sample, (B,), and their number, (B,).

        Args:
            prediction: predictions (B, K).
            target: targets (B, K), NaN where unknown.
        """
        known = ~torch.isnan(target)
        each = self.measure(prediction, torch.where(known, target, prediction.detach()))
        return torch.where(known, each, 0).flatten(1).sum(1), known.flatten(1).sum(1).to(prediction.dtype)

    def columns(self, output: Tensor, target: Tensor | None, network: nn.Module, data: object) -> dict[str, Column]:
        """Return each number where known, and the prediction of each.

        Args:
            output: output of the network.
            target: numbers, NaN where unknown; None where there are none.
            network: network, named in error messages.
            data: data module, which may know the names of the numbers.
        """
        prediction = wide(output, network)
        prediction = prediction.unsqueeze(1) if prediction.dim() == 1 else prediction.flatten(1)
        known = None if target is None else target.flatten(1) if target.dim() > 2 else target
        return {
            **named_columns("target", known, prediction, data),
            **named_columns("prediction", prediction, prediction, data),
        }

    def metrics(self) -> MetricCollection:
        """Return ``mae`` and ``rmse`` over all known targets."""
        return MetricCollection({"mae": MaskedMeanAbsoluteError(), "rmse": MaskedRootMeanSquaredError()})


@dataclass(frozen=True)
class Quantiles(Objective):
    r"""Quantiles of numbers, of which some are missing (NaN): pinball loss; its mean, and the error of the median.

    .. math:: L = \frac{1}{|M| Q} \sum_{m \in M} \sum_q \max\bigl(\tau_q (y_m - f_{mq}),\ (\tau_q - 1)(y_m - f_{mq})
        \bigr)

    Args:
        levels: quantile levels :math:`\tau` in (0, 1), ascending, at least one.

    Shape:
        output (B, ..., Q), target (B, ...)

    Raises:
        ValueError: if the levels are not ascending numbers in (0, 1); in a step, if the last axis of the output does
            not have length Q.
        DataError: in a step, if the target is of another shape.

    Example:
        >>> loss, size = Quantiles((0.1, 0.5, 0.9)).loss(torch.zeros(4, 3), torch.ones(4))
        >>> round(float(loss), 3), int(size)
        (0.5, 4)
    """

    levels: Sequence[float] = (0.1, 0.5, 0.9)

    def __post_init__(self) -> None:
        """Check the levels."""
        levels = list(self.levels)
        if not levels or sorted(set(levels)) != levels or not 0 < levels[0] <= levels[-1] < 1:
            raise ValueError(f"levels is {levels}; quantile levels must be in (0, 1), ascending, at least one")

    def align(self, output: Tensor, target: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Return quantiles (B, ..., Q) and targets (B, ...).

        Args:
            output: output of the network.
            target: target numbers, NaN where unknown.
            network: network, named in error messages.
        """
        prediction = wide(output, network)
        if prediction.dim() < 2 or prediction.size(-1) != len(self.levels):
            raise ValueError(
                f"{type(network).__name__} returned {tuple(prediction.shape)}; {len(self.levels)} quantiles must be "
                f"(B, ..., {len(self.levels)}). Set the network's last width to the number of levels"
            )
        return prediction, reshaped(target, prediction[..., 0], "targets")

    def loss(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean pinball loss over known targets, and their number.

        Args:
            prediction: predicted quantiles (B, ..., Q).
            target: targets (B, ...), NaN where unknown.
        """
        terms, sizes = self.sample_losses(prediction, target)
        size = sizes.sum()
        return terms.sum() / size.clamp(min=1), size

    def sample_losses(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses over the known targets of each sample, (B,), and their number, (B,).

        Args:
            prediction: predicted quantiles (B, ..., Q).
            target: targets (B, ...), NaN where unknown.
        """
        known = ~torch.isnan(target)
        each = pinball_loss(prediction, torch.where(known, target, 0), self.levels)  # (B, ...)
        terms = torch.where(known, each, 0).reshape(len(target), -1).sum(1)
        return terms, known.reshape(len(target), -1).sum(1).to(prediction.dtype)

    def columns(self, output: Tensor, target: Tensor | None, network: nn.Module, data: object) -> dict[str, Column]:
        """Return the numbers where known, and the prediction of each quantile.

        Args:
            output: output of the network.
            target: numbers, NaN where unknown; None where there are none.
            network: network, named in error messages.
            data: data module, which may know the names of the numbers.
        """
        prediction = wide(output, network)
        known: dict[str, Column] = {} if target is None else {"target": reshaped(target, prediction[..., 0], "targets")}
        return {**known, **{f"q{level:g}": prediction[..., place] for place, level in enumerate(self.levels)}}

    def metrics(self) -> MetricCollection:
        """Return ``pinball``, the mean pinball loss over all known targets."""
        return MetricCollection({"pinball": MeanPinballLoss(self.levels)})
