"""Virtual training steps of a network, and its validation loss after them."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from graphseq.nn.reweighting.outer import VirtualLearner
from graphseq.tasks.supervised.samples import SampleTask

__all__: list[str] = []


class VirtualLearners:
    """Virtual learners of a task's network: its head on fixed representations, or the whole network.

    Running statistics of norms are unchanged. Validation samples are passed in evaluation mode.

    Args:
        task: task whose network takes the virtual steps.
        batch: training batch.
        representation: representations of the B' samples of the training step, detached, (B', D).
        kept: positions of these samples in the batch, int64 (B',).
        target: targets of these samples that ``aligned_target`` returned.
        validation: batch of validation samples.
        lr: step size for all parameters; the step size of the head alone follows from the representations.

    Example:
        >>> from graphseq.models import GraphClassifier
        >>> task = SampleTask(GraphClassifier(3, 2), num_outputs=2)
        >>> graph = {"x": torch.ones(4, 3), "edge_index": torch.tensor([[0], [1]]), "y": torch.tensor([1])}
        >>> one = torch.tensor([0])
        >>> learner = VirtualLearners(task, graph, torch.ones(1, 64), one, graph["y"], graph)("head")
        >>> learner.validation(learner.parameters).shape
        torch.Size([])
    """

    def __init__(
        self,
        task: SampleTask,
        batch: object,
        representation: Tensor,
        kept: Tensor,
        target: Tensor,
        validation: object,
        lr: float = 0.1,
    ) -> None:
        self.task = task
        self.batch = batch
        self.representation = representation
        self.kept = kept
        self.target = target
        self.validation = validation
        self.lr = lr
        self._represented: Tensor | None = None

    def __call__(self, scope: Literal["head", "all"]) -> VirtualLearner:
        """Return a learner that starts from the network's parameters.

        Args:
            scope: parameters that take the steps: ``head`` or ``all``.
        """
        part, prefix = (self.task.head, "") if scope == "head" else (self.task.model, "model.")
        module = self.task.head if scope == "head" else self.task
        parameters: dict[str, Tensor] = {
            f"{prefix}{name}": value for name, value in part.named_parameters() if value.requires_grad
        }
        buffers = {f"{prefix}{name}": value.clone() for name, value in part.named_buffers()}

        def apply(values: dict[str, Tensor], given: object) -> Tensor:
            # a norm in training mode writes into its buffers, which must not affect the next call
            state = {**{name: value.clone() for name, value in buffers.items()}, **values}
            return cast(Tensor, functional_call(module, state, (given,)))

        def train(values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            if scope == "head":
                output = apply(values, self.representation)
            else:
                output = self.task.aligned_target(self.batch, apply(values, self.batch))[0][self.kept]
            return self.task.sample_losses(output, self.target)

        def validate(values: dict[str, Tensor]) -> Tensor:
            with evaluating(self.task.model):
                given = self._validation_representation() if scope == "head" else self.validation
                output, target = self.task.aligned_target(self.validation, apply(values, given))
            terms, sizes = self.task.sample_losses(output, target)
            return terms.sum() / sizes.sum().clamp(min=1)

        # the curvature of the log-loss of a linear head is at most the squared norm of its input, plus 1 for the bias
        safe = 1 / (1 + self.representation.square().sum(1).mean())
        return VirtualLearner(parameters, train, validate, safe if scope == "head" else self.lr)

    def _validation_representation(self) -> Tensor:
        if self._represented is None:
            with torch.no_grad():
                self._represented = SampleTask.represent(self.task, self.validation)[1].to(self.representation.dtype)
        return self._represented


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Context in which a module is in evaluation mode; the mode of each submodule is restored afterwards.

    Args:
        module: any module.

    Example:
        >>> net = nn.Dropout()
        >>> with evaluating(net):
        ...     net.training
        False
        >>> net.training
        True
    """
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def warn_of_equal_distribution(data: Any) -> None:
    """Warn if validation and training samples have the same distribution: an unrolled objective then has no signal.

    Args:
        data: data module with ``splits`` and ``store``; its attribute ``split`` and the field ``env`` of its store are
            read if they exist.

    Example:
        >>> from types import SimpleNamespace
        >>> warn_of_equal_distribution(SimpleNamespace(store=None, splits={}, split="size_middle"))
    """
    # "size" tests on larger graphs, but validates on those of the sizes of training
    alike = getattr(data, "split", None) in ("random", "stratified", "k_fold", "size")
    reason = f"the split is {data.split!r}" if alike else ""
    if getattr(data, "pool_validation", False):
        reason = "they are drawn from training and validation samples together, pool_validation"
    field = getattr(data.store, "field", None)
    env = field("env") if callable(field) else None
    if isinstance(env, Tensor) and env.dim() == 1:
        seen, held = (set(env[data.splits[name].to(env.device)].tolist()) for name in ("train", "val"))
        reason = "its environments are among those of training" if held <= seen else ""
    if reason:
        warnings.warn(
            f"validation samples seem to have the distribution of training samples ({reason}): weights learned to "
            "lower their loss then mean nothing under another distribution. Hold out another environment, "
            "scaffold (split='scaffold') or size (split='size_middle')",
            stacklevel=2,
        )
