"""Base class of objectives, and checks that they share."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from graphseq.core.errors import DataError
from graphseq.tasks.base import Step
from graphseq.tasks.predictions import Column, output_names

__all__ = ["Objective"]


class Objective(ABC):
    """A kind of target: alignment with the prediction, loss, and metrics, for tasks of all families alike.

    An objective is a plain object without parameters. A task calls :meth:`step` with the network's output, or the
    three methods one by one where it needs more than the mean loss.

    Example:
        >>> from graphseq.tasks import Classes
        >>> output, target = torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])
        >>> Classes(3).step(output, target, nn.Linear(2, 3)).size
        4
    """

    @abstractmethod
    def align(self, output: Tensor, target: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Return predictions in float32 or wider, and the targets that belong to them, after a check of both.

        Args:
            output: output of the network.
            target: targets of the batch.
            network: network, named in error messages.
        """

    @abstractmethod
    def loss(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, int | Tensor]:
        """Return the mean loss over known targets, and the denominator of that mean.

        Args:
            prediction: predictions that :meth:`align` returned.
            target: targets that :meth:`align` returned.
        """

    @abstractmethod
    def sample_losses(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses of each sample, (B,), and the number of known targets it runs over, (B,).

        Args:
            prediction: predictions that :meth:`align` returned.
            target: targets that :meth:`align` returned.
        """

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Return the metrics of validation and test, without prefix."""

    def columns(self, output: Tensor, target: Tensor | None, network: nn.Module, data: object) -> dict[str, Column]:
        """Return columns of a table of predictions: target where known, and the outputs as they are.

        Args:
            output: output of the network.
            target: targets of the batch; None where they are not known.
            network: network, named in error messages.
            data: data module, which may know the names of the outputs.
        """
        known: dict[str, Column] = {} if target is None else {"target": target}
        return {**known, "output": wide(output, network)}

    def step(self, output: Tensor, target: Tensor, network: nn.Module) -> Step:
        """Return the step of a batch with its mean loss.

        Args:
            output: output of the network.
            target: targets of the batch.
            network: network, named in error messages.
        """
        prediction, target = self.align(output, target, network)
        loss, size = self.loss(prediction, target)
        return Step(loss, prediction, target, size)


def check_outputs(num_outputs: int, least: int, kind: str) -> None:
    """Raise ``ValueError`` if ``num_outputs`` is too small.

    Args:
        num_outputs: number of classes, labels or numbers that a task was given.
        least: smallest number that is accepted.
        kind: kind of target, for the error message.

    Example:
        >>> check_outputs(2, 2, "multiclass")
    """
    if num_outputs < least:
        raise ValueError(f"num_outputs is {num_outputs}; {kind} targets need at least {least}")


def wide(output: object, network: nn.Module) -> Tensor:
    """Return a network's output in float32 or wider, since losses in half precision are inaccurate.

    Args:
        output: output of the network.
        network: network, named in the error message.

    Raises:
        ValueError: if the output is not a tensor.

    Example:
        >>> wide(torch.zeros(2, dtype=torch.bfloat16), nn.Linear(4, 3)).dtype
        torch.float32
    """
    if not isinstance(output, Tensor):
        raise ValueError(f"{type(network).__name__} returned a {type(output).__name__}; it must return one tensor")
    return output.to(torch.promote_types(output.dtype, torch.float32))


def class_logits(output: object, network: nn.Module, width: int) -> Tensor:
    """Return a network's output as logits (B, K) in float32 or wider, after a check of its shape.

    Args:
        output: output of the network.
        network: network, named in the error message.
        width: number of outputs K.

    Raises:
        ValueError: if the output is not (B, K).

    Example:
        >>> class_logits(torch.zeros(2, 3, dtype=torch.bfloat16), nn.Linear(4, 3), 3).dtype
        torch.float32
    """
    if not isinstance(output, Tensor) or output.dim() != 2 or output.size(1) != width:
        given = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise ValueError(
            f"{type(network).__name__} returned {given}; logits of {width} outputs "
            f"must be (B, {width}). Set the network's last width to num_outputs"
        )
    return wide(output, network)


def reshaped(target: Tensor, prediction: Tensor, what: str, expected: str = "", fits: bool = True) -> Tensor:
    """Return targets converted to the type and shape of predictions.

    Args:
        target: targets, of the same shape or flat.
        prediction: predictions.
        what: name of the targets, for the error message.
        expected: description of the expected predictions, for the error message.
        fits: whether the predictions have the width of the task's ``num_outputs``.

    Raises:
        DataError: if the shapes differ.

    Example:
        >>> reshaped(torch.tensor([1, 2]), torch.zeros(1, 2), "labels")
        tensor([[1., 2.]])
    """
    if target.dim() == 1 and target.numel() == prediction.numel():
        target = target.view(prediction.shape)  # PyG joins targets (K,) of graphs to (B K,)
    if target.shape != prediction.shape or not fits:
        raise DataError(
            f"{what} are {tuple(target.shape)}, predictions {tuple(prediction.shape)}{expected}; they must agree"
        )
    return target.to(prediction.dtype)


def named_columns(prefix: str, values: Tensor | None, like: Tensor, data: object) -> dict[str, Column]:
    """Return a column for each of several outputs, or one column of the prefix's name for a single output.

    Args:
        prefix: first part of the names.
        values: values (B, K), or flat; None for no columns.
        like: outputs (B, K), which give the shape.
        data: data module, which may know the names of the outputs.

    Example:
        >>> list(named_columns("p", torch.zeros(2, 2), torch.zeros(2, 2), None)), list(
        ...     named_columns("target", torch.zeros(2), torch.zeros(2, 1), None))
        (['p_0', 'p_1'], ['target'])
    """
    if values is None:
        return {}
    values = reshaped(values, like, "targets")
    if like.size(1) == 1:
        return {prefix: values[:, 0]}
    return {f"{prefix}_{name}": values[:, k] for k, name in enumerate(output_names(data, like.size(1)))}
