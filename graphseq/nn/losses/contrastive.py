"""Contrastive losses as modules: over several views of each sample, with or without labels."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from graphseq.core import DataError, Recorded
from graphseq.ops import spectral_contrastive_loss, supervised_contrastive_loss

__all__ = ["ContrastiveLoss", "NTXentLoss", "SpectralContrastiveLoss", "SupervisedContrastiveLoss"]


class ContrastiveLoss(Recorded, nn.Module):
    """Base class of losses over the projections of all views of a batch; a subclass defines ``forward``.

    ``needs_labels`` says whether the loss reads labels, and ``least_views`` and ``most_views`` how many views of each
    sample it takes.

    Shape:
        z (V, B, D), labels (B,) or None -> ()

    Example:
        >>> class Pull(ContrastiveLoss):
        ...     least_views = 2
        ...     def forward(self, z, labels=None):
        ...         return z.var(0).mean()
        >>> Pull()(torch.ones(2, 5, 3))
        tensor(0.)
    """

    needs_labels: ClassVar[bool] = False
    least_views: ClassVar[int] = 1
    most_views: ClassVar[int | None] = None

    def check_views(self, count: int) -> None:
        """Check that the loss takes this number of views of each sample.

        Args:
            count: number of views V.

        Raises:
            ValueError: if it does not.
        """
        if count < self.least_views or (self.most_views is not None and count > self.most_views):
            needed = self.least_views if self.least_views == self.most_views else f"at least {self.least_views}"
            raise ValueError(
                f"{type(self).__name__} is given {count} view(s) of each sample; it needs {needed}: give the task a "
                "list `views` of as many modules that make them, such as graphseq.data.RandomCrop"
            )

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss.

        Args:
            z: projections of V views of B samples (V, B, D).
            labels: class of each sample, int64 (B,); None where the loss reads none.
        """
        raise TypeError(f"{type(self).__name__} must define forward(z, labels)")


class SupervisedContrastiveLoss(ContrastiveLoss):
    """Supervised contrastive loss: views of all samples of a class are positive pairs.

    See :func:`graphseq.ops.supervised_contrastive_loss`. A sample with a negative label counts as unlabelled: its
    positives are its own other views, and it is a negative for all others.

    Source: arXiv 2004.11362, eq. 2; as in arXiv 2403.11391 with one or more views and a temperature of 0.5.

    Args:
        temperature: temperature of the cosine similarities, above 0.

    Shape:
        z (V, B, D), labels int64 (B,) -> ()

    Raises:
        ValueError: if the temperature is not above 0; in ``forward``, if ``z`` has another rank.
        DataError: in ``forward``, if there are no labels, or not one whole number for each sample.

    Example:
        >>> loss = SupervisedContrastiveLoss(temperature=1.0)
        >>> loss(torch.eye(3)[None], torch.tensor([0, 0, 1])), loss(torch.eye(3)[None], torch.tensor([-1, -1, -1]))
        (tensor(0.6931), tensor(0.))
    """

    needs_labels = True

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__()
        self.temperature = _positive(temperature)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss.

        Args:
            z: projections of V views of B samples (V, B, D).
            labels: class of each sample, int64 (B,); negative where it is not known.
        """
        _check_projections(z)
        if labels is None or labels.shape != z.shape[1:2] or labels.is_floating_point() or labels.is_complex():
            given = "None" if labels is None else f"{labels.dtype} {tuple(labels.shape)}"
            raise DataError(
                f"labels are {given} for {z.shape[1]} samples; the supervised contrastive loss needs one whole number "
                "for each sample. Without labels use NTXentLoss or SpectralContrastiveLoss"
            )
        alone = -1 - torch.arange(len(labels), device=labels.device)  # each unlabelled sample is a class of its own
        groups = torch.where(labels < 0, alone, labels).repeat(len(z))
        return supervised_contrastive_loss(z.flatten(0, 1), groups, self.temperature)


class NTXentLoss(ContrastiveLoss):
    """Contrastive loss of SimCLR: the views of a sample are positive pairs, all others negative ones.

    See :func:`graphseq.ops.nt_xent_loss`. With more than two views the mean runs over all pairs of views of a sample.

    Source: arXiv 2002.05709, eq. 1.

    Args:
        temperature: temperature of the cosine similarities, above 0.

    Shape:
        z (V, B, D) with V of at least 2 -> ()

    Raises:
        ValueError: if the temperature is not above 0; in ``forward``, for a single view, or if ``z`` has another rank.

    Example:
        >>> NTXentLoss(temperature=1.0)(torch.eye(2).expand(2, 2, 2))
        tensor(0.5514)
    """

    least_views = 2

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__()
        self.temperature = _positive(temperature)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss.

        Args:
            z: projections of V views of B samples (V, B, D).
            labels: not read.
        """
        _check_projections(z)
        self.check_views(len(z))
        samples = torch.arange(z.shape[1], device=z.device).repeat(len(z))
        return supervised_contrastive_loss(z.flatten(0, 1), samples, self.temperature)


class SpectralContrastiveLoss(ContrastiveLoss):
    """Spectral contrastive loss of two views, see :func:`graphseq.ops.spectral_contrastive_loss`.

    Source: arXiv 2106.04156.

    Shape:
        z (2, B, D) -> ()

    Raises:
        ValueError: in ``forward``, unless there are two views, or if ``z`` has another rank.

    Example:
        >>> SpectralContrastiveLoss()(torch.eye(3).expand(2, 3, 3))
        tensor(-2.)
    """

    least_views = 2
    most_views = 2

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss.

        Args:
            z: projections of two views of B samples (2, B, D).
            labels: not read.
        """
        _check_projections(z)
        self.check_views(len(z))
        return spectral_contrastive_loss(z[0], z[1])


def _check_projections(z: Tensor) -> None:
    if z.dim() != 3:
        raise ValueError(
            f"z has shape {tuple(z.shape)}, where projections (V, B, D) of V views are needed; stack the views with "
            "torch.stack, or give z[None] for a single view"
        )


def _positive(temperature: float) -> float:
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    return temperature
