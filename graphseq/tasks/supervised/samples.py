"""Base class of procedures that weight samples or groups of samples."""

from dataclasses import dataclass
from typing import Literal, Unpack

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from graphseq.core.batches import batch_field, batch_target
from graphseq.core.errors import DataError
from graphseq.core.wrappers import unwrapped
from graphseq.tasks.base import Stage, Step, Task, TaskOptions
from graphseq.tasks.objectives.named import objective_of

__all__ = ["SampleLosses", "SampleOptions", "SampleTask"]

Target = Literal["multiclass", "multilabel", "regression"]


class SampleOptions(TaskOptions, total=False):
    """Arguments that procedures pass on to :class:`SampleTask`, for ``**options: Unpack[SampleOptions]``.

    Args:
        target: kind of target: integer labels (B,), ``multiclass``; 0, 1 or NaN (B, K), ``multilabel``; or numbers or
            NaN (B, K), ``regression``. Default ``multiclass``.
        loss: for regression, module from outputs and targets to losses of the same shape; default squared error.
        optimizer: callable from parameters to an optimiser; default ``torch.optim.Adam`` with its own defaults.
        scheduler: callable from the optimiser to a learning-rate scheduler; default no scheduler.
        scheduler_interval: whether the scheduler steps once per ``epoch`` or once per ``step``; default ``epoch``.
        stop_on_nonfinite: whether a NaN or infinite training loss stops the run; default true. On a GPU the loss is
            read where losses are logged, so that no step waits for it.

    Example:
        >>> options: SampleOptions = {"target": "regression", "scheduler_interval": "step"}
    """

    target: Target
    loss: nn.Module | None


@dataclass
class SampleLosses:
    """Losses of the samples of one batch, with the predictions and targets they were computed from.

    Args:
        batch: batch of the samples.
        output: output of the network.
        prediction: aligned predictions (B, K), in float32 or wider.
        target: aligned targets, (B,) or (B, K).
        representation: input of the network's head, (B, D).
        terms: sum of the losses of each sample over its known targets, (B,).
        sizes: number of known targets of each sample, (B,).

    Example:
        >>> losses = SampleLosses(None, *[torch.zeros(2, 1)] * 4, torch.tensor([1.0, 5.0]), torch.tensor([1.0, 2.0]))
        >>> losses.mean().loss
        tensor(2.)
    """

    batch: object
    output: Tensor
    prediction: Tensor
    target: Tensor
    representation: Tensor
    terms: Tensor
    sizes: Tensor

    def mean(self) -> Step:
        """Return the step with the unweighted mean over all known targets."""
        size = self.sizes.sum()
        return Step(self.terms.sum() / size.clamp(min=1), self.prediction, self.target, size)


def required_field(batch: object, name: str, purpose: str) -> Tensor:
    """Return a field with one entry for each sample.

    Args:
        batch: dictionary, or an object with attributes.
        name: name of the field.
        purpose: description of the field and its source, for the error message.

    Raises:
        DataError: if the batch has no such field, or the field is not a tensor.

    Example:
        >>> required_field({"idx": torch.tensor([3])}, "idx", "position of each sample")
        tensor([3])
    """
    value = batch_field(batch, name)
    if not isinstance(value, Tensor):
        raise DataError(f"a {type(batch).__name__} without `{name}` was given; it must hold the {purpose}")
    return value


class SampleTask(Task[object]):
    r"""Base of procedures that need the loss of each sample: a sum :math:`s_n` over :math:`c_n` known targets.

    With equal weights the loss :math:`\sum_n s_n / \sum_n c_n` is that of :class:`Classification` or
    :class:`Regression`: cross-entropy, binary cross-entropy of the known labels, or squared error of the known numbers.
    A subclass combines them in :meth:`training_loss` for training; validation and test take the mean.

    The *representation* of a sample is the input of the network's ``head``.

    Args:
        model: network with a module ``head`` that maps one vector for each sample to outputs.
        num_outputs: number K of classes, labels or quantities, at least 1; at least 2 for multiclass.
        target: kind of target: integer labels (B,), ``multiclass``; 0, 1 or NaN (B, K), ``multilabel``; or numbers or
            NaN (B, K), ``regression``.
        loss: for regression, module from outputs and targets to losses of the same shape; default squared error.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if an argument is out of range.
        TypeError: if the network has no ``head``.
        DataError: in a step, if targets are not of the kind that ``target`` says.

    Example:
        >>> from graphseq.models import GraphClassifier
        >>> task = SampleTask(GraphClassifier(3, 2), num_outputs=2)
        >>> graph = {"x": torch.ones(4, 3), "edge_index": torch.tensor([[0], [1]]), "y": torch.tensor([1])}
        >>> task.step(graph).size
        tensor(1.)
    """

    def __init__(
        self,
        model: nn.Module,
        num_outputs: int,
        *,
        target: Target = "multiclass",
        loss: nn.Module | None = None,
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, **options)
        self.num_outputs = num_outputs
        self.target = target
        self.loss = nn.MSELoss(reduction="none") if loss is None else loss
        self.target_kind = objective_of(target, num_outputs, measure=self.loss)
        if loss is not None and (target != "regression" or getattr(loss, "reduction", "none") != "none"):
            raise ValueError(
                f"loss is {loss!r} with target={target!r}; a loss can be given for regression, and must keep the "
                "entries apart: torch.nn.L1Loss(reduction='none')"
            )
        self.head  # noqa: B018 - refuses a network without one

    def configure_metrics(self) -> MetricCollection:
        """Return the metrics of :class:`Classification` or :class:`Regression`."""
        return self.target_kind.metrics()

    @property
    def head(self) -> nn.Module:
        """The module whose input is the representation."""
        network = unwrapped(self.model)
        head = getattr(network, "head", None)  # of any network that a user gives
        if not isinstance(head, nn.Module):
            raise TypeError(
                f"{type(network).__name__} has no module `head`; give a network whose head reads one vector for each "
                "sample, such as graphseq.models.GraphClassifier, or FromPyG with out_channels"
            )
        return head

    def represent(self, batch: object) -> tuple[Tensor, Tensor]:
        """Return the network's output and the input of its head, (B, D).

        Args:
            batch: one batch.

        Raises:
            ValueError: if the input of the head is not one vector for each sample.
        """
        read: list[Tensor] = []
        handle = self.head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        try:
            # a compiled network does not call hooks that were registered after compilation
            with torch.compiler.set_stance("force_eager"):
                output = self(batch)
        finally:
            handle.remove()
        if len(read) != 1 or not isinstance(read[0], Tensor) or read[0].dim() != 2:
            raise ValueError(
                f"the head of {type(self.model).__name__} was called {len(read)} times in one pass; it must read one "
                "matrix (B, D), once"
            )
        return output, read[0]

    def aligned_target(self, batch: object, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions (B, K) in float32 or wider and the targets that belong to them.

        Args:
            batch: one batch.
            output: output of the network.
        """
        return self.target_kind.align(output, batch_target(batch), self.model)

    def sample_losses(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses of each sample and the number of known targets it runs over: (B,), (B,).

        Args:
            prediction: predictions (B, K).
            target: targets that :meth:`aligned_target` returned.
        """
        return self.target_kind.sample_losses(prediction, target)

    def losses_of(self, batch: object) -> SampleLosses:
        """Return the losses of the samples of a batch.

        Args:
            batch: tuple, PyG batch or dictionary with a target.
        """
        output, representation = self.represent(batch)
        prediction, target = self.aligned_target(batch, output)
        return SampleLosses(batch, output, prediction, target, representation, *self.sample_losses(prediction, target))

    def training_loss(self, losses: SampleLosses) -> Step:
        """Return the step of a training batch from the losses of its samples.

        Args:
            losses: losses of the samples of the batch.
        """
        return losses.mean()

    def step(self, batch: object, stage: Stage = "train") -> Step:
        """Return the loss of a batch: in training that of :meth:`training_loss`, else the mean.

        Args:
            batch: tuple, PyG batch or dictionary with a target.
            stage: stage of the run: ``train``, ``val`` or ``test``.
        """
        losses = self.losses_of(batch)
        return self.training_loss(losses) if stage == "train" else losses.mean()
