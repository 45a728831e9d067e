"""Representation learning by a contrastive loss over views of the samples of a batch."""

import inspect
from typing import Unpack

import torch
from torch import Tensor, nn

from graphseq.core.batches import batch_target
from graphseq.core.errors import DataError
from graphseq.nn import ContrastiveLoss
from graphseq.tasks.base import Stage, Step, Task, TaskOptions

__all__ = ["RepresentationLearning"]

_EVALUATION_SEED = 0


class RepresentationLearning(Task[object]):
    r"""Train a network so that its outputs for views of the samples of a batch have a small contrastive loss.

    .. math:: L = \ell(z_1, \dots, z_V;\, y), \qquad z_v = f(v(x))

    The network usually has a projection head, see :class:`graphseq.models.ProjectedNetwork`. With a loss that reads
    labels this is supervised contrastive learning, without labels it is SimCLR. Cross-entropy with a projection head is
    :class:`Classification` of a :class:`graphseq.models.ProjectedClassifier`; two views of graphs are those of
    :class:`GraphContrast`, with the same heads and losses.

    Procedure:
        1. all views of the batch, on the device; 2. one pass of the network over all of them; 3. the loss; 4. one step
        of the optimiser.

    Logs:
        ``<stage>/loss``, the mean over batches: pairs are those within a batch, and on several processes those within
        the share of a process.

    Source: arXiv 2403.11391; arXiv 2002.05709; arXiv 2004.11362.

    Args:
        model: network whose output is one vector for each sample.
        loss: contrastive loss, such as :class:`graphseq.nn.NTXentLoss`.
        views: modules that each make a view of the inputs, such as those of :mod:`graphseq.data` that transform images;
            if their ``forward`` has a parameter ``generator``, validation and test make the same views in each epoch.
            None for the inputs of the batch as the only view.
        options: arguments of :class:`Task`.

    Raises:
        TypeError: if ``loss`` is not a contrastive loss.
        ValueError: if the loss does not take this number of views.
        DataError: in a step, if the loss needs labels and there are none, or views are to be made of graphs.

    Example:
        >>> from graphseq.nn import NTXentLoss
        >>> task = RepresentationLearning(nn.Linear(3, 2), NTXentLoss(), views=[nn.Identity(), nn.Dropout()])
        >>> task.step((torch.randn(4, 3), torch.zeros(4, dtype=torch.int64))).size
        4
    """

    def __init__(
        self,
        model: nn.Module,
        loss: ContrastiveLoss,
        *,
        views: list[nn.Module] | None = None,
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, **options)
        if not isinstance(loss, ContrastiveLoss):
            raise TypeError(f"loss is a {type(loss).__name__}; give a graphseq.nn.ContrastiveLoss such as NTXentLoss")
        loss.check_views(1 if views is None else len(views))
        self.loss = loss
        self.views = nn.ModuleList(views or [])
        self._draws = ["generator" in inspect.signature(view.forward).parameters for view in self.views]

    def projections(self, batch: object, stage: Stage = "train") -> Tensor:
        """Return the outputs of the network for all views of a batch (V, B, D), in float32 or wider.

        Args:
            batch: one batch.
            stage: stage of the run; training draws from torch's own generator, the others from one with a fixed seed.
        """
        if not len(self.views):
            z = self._vectors(self(batch))
            return z[None].to(torch.promote_types(z.dtype, torch.float32))
        x = batch[0] if isinstance(batch, tuple | list) else batch
        if not isinstance(x, Tensor):
            raise DataError(
                f"views are to be made of a {type(x).__name__}; they take tensors such as images. For views of graphs "
                "use GraphContrast, or leave views out"
            )
        generator = None if stage == "train" else torch.Generator(x.device).manual_seed(_EVALUATION_SEED)
        made = [view(x, generator) if draws else view(x) for view, draws in zip(self.views, self._draws, strict=True)]
        z = self._vectors(self.model(torch.cat(made)))  # one pass, so that batch norm sees the views together
        return z.unflatten(0, (len(made), -1)).to(torch.promote_types(z.dtype, torch.float32))

    def _vectors(self, z: object) -> Tensor:
        if not isinstance(z, Tensor) or z.dim() != 2:
            given = tuple(z.shape) if isinstance(z, Tensor) else f"a {type(z).__name__}"
            raise ValueError(f"{type(self.model).__name__} returned {given}; it must return vectors (B, D)")
        return z

    def step(self, batch: object, stage: Stage = "train") -> Step:
        """Return the contrastive loss of a batch.

        Args:
            batch: tuple, PyG batch or dictionary, with a target if the loss needs labels.
            stage: stage of the run.
        """
        z = self.projections(batch, stage)
        labels = batch_target(batch).flatten() if self.loss.needs_labels else None
        return Step(self.loss(z, labels), z[0], z[0] if labels is None else labels, z.shape[1])
