"""Objectives of the weights of training samples: independence of variables, or a lower loss on validation data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from graphseq.core import DataError, Elastic, Recorded
from graphseq.ops import cluster_variables, correlation_dissimilarity, decorrelation_loss, random_fourier_features

__all__ = ["DecorrelationOuter", "UnrolledOuter"]

Scope = Literal["head", "all"]


@dataclass
class VirtualLearner:
    """A copy of the parameters for virtual training steps.

    Args:
        parameters: initial parameters, by name.
        train: function from parameters to the losses of the training samples: the sum over the terms of each sample
            (B,), and the number of its terms (B,).
        validation: function from parameters to the mean loss of a batch of validation samples.
        lr: step size bounded by the curvature of the loss, so that a step does not overshoot.

    Example:
        >>> start = {"w": torch.ones(1)}
        >>> learner = VirtualLearner(start, lambda p: (p["w"] ** 2, torch.ones(1)), lambda p: 2 * p["w"].sum())
        >>> learner.validation(start)
        tensor(2.)
    """

    parameters: dict[str, Tensor]
    train: Callable[[dict[str, Tensor]], tuple[Tensor, Tensor]]
    validation: Callable[[dict[str, Tensor]], Tensor]
    lr: float | Tensor = 0.1


@dataclass
class OuterBatch:
    """Input of an outer objective at one step of the weights.

    Args:
        representation: input of the head, detached, for samples held out of training and those in the queue, (S, D).
        weight: weights of the samples in ``representation``, with a gradient, (S,).
        train_weight: weights of the samples of the training step, with a gradient, (B,).
        learner: function from a scope, ``head`` or ``all``, to a virtual learner with those parameters; None if there
            are no validation samples.
        generator: random number generator on the CPU.

    Example:
        >>> batch = OuterBatch(torch.randn(9, 4), torch.ones(9), torch.ones(5), None, torch.Generator())
        >>> loss, _ = DecorrelationOuter(num_clusters="all")(batch)
        >>> loss.shape
        torch.Size([])
    """

    representation: Tensor
    weight: Tensor
    train_weight: Tensor
    learner: Callable[[Scope], VirtualLearner] | None
    generator: Generator


class DecorrelationOuter(Recorded, Elastic):
    r"""Weights under which variables of different clusters of the representation are independent.

    .. math::
        L(W) = \lambda \operatorname{mean}_{i < j,\ c_i \neq c_j} \lVert C^W_{ij} \rVert_F^2 / Q^2

    with :math:`C^W` the covariance of random Fourier features, drawn anew at each call (see
    :func:`graphseq.ops.decorrelation_loss`). A cluster holds variables whose correlation is the same in all groups of
    samples (:func:`graphseq.ops.correlation_dissimilarity`). One cluster leaves all weights equal; ``"all"``, one for
    each variable, is the objective of StableNet (arXiv 2104.07876) and OOD-GNN (arXiv 2112.03806).

    Source: arXiv 2312.12475, eq. 8. Differs from it: clusters by average linkage, groups of samples at random or
    by environment, the covariance under the weights; see :mod:`graphseq.ops` for the reasons.

    Args:
        num_clusters: number of clusters, from 1 to the number D of variables; None for the larger of 2 and the square
            root of D / 2; ``"all"`` for one cluster for each variable.
        source: groups of samples whose correlations are compared: random ``groups``, or ``environments`` of the data.
        clusters: fixed cluster of each variable; None to compute clusters.
        num_features: number Q of random Fourier features of each variable, at least 1.
        estimator: ``weighted`` for the covariance under the weights, ``product`` for the covariance of weighted
            features that the paper prints.
        num_groups: number L of random groups, at least 2; it is reduced if a group would have fewer than ``min_count``
            samples.
        min_count: smallest number of samples in a group, at least 3.
        scale: factor :math:`\lambda` of the loss, at least 0.

    Raises:
        ValueError: if an argument is out of range, or there are more clusters than variables.

    Example:
        >>> outer = DecorrelationOuter(num_clusters=2)
        >>> outer.recluster(torch.randn(60, 4), None, torch.Generator())
        >>> outer.cluster.shape
        torch.Size([4])
    """

    elastic = ("cluster",)
    cluster: Tensor
    needs_validation = False

    def __init__(
        self,
        num_clusters: int | Literal["all"] | None = None,
        *,
        source: Literal["groups", "environments"] = "groups",
        clusters: list[int] | None = None,
        num_features: int = 5,
        estimator: Literal["weighted", "product"] = "weighted",
        num_groups: int = 10,
        min_count: int = 5,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if isinstance(num_clusters, str) and num_clusters != "all":
            raise ValueError(f"num_clusters is {num_clusters!r}; it must be a number, 'all', or None")
        if isinstance(num_clusters, int) and num_clusters < 1:
            raise ValueError(f"num_clusters is {num_clusters}; it must be at least 1")
        if source not in ("groups", "environments"):
            raise ValueError(f"source is {source!r}; it must be 'groups' or 'environments'")
        if clusters is not None and (num_clusters is not None or not clusters or min(clusters) < 0):
            raise ValueError(
                f"clusters is {clusters} with num_clusters={num_clusters}; give one of them: a list with a number of "
                "at least 0 for each variable, or how many to find"
            )
        for name, value, least in (
            ("num_features", num_features, 1),
            ("num_groups", num_groups, 2),
            ("min_count", min_count, 3),
            ("scale", scale, 0),
        ):
            if not value >= least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        if estimator not in ("weighted", "product"):
            raise ValueError(f"estimator is {estimator!r}; it must be 'weighted' or 'product'")
        self.num_clusters = num_clusters
        self.source = source
        self.num_features = num_features
        self.estimator: Literal["weighted", "product"] = estimator
        self.num_groups = num_groups
        self.min_count = min_count
        self.scale = scale
        self.searches = clusters is None and num_clusters != "all"
        self.epoch = -1  # in which the clusters were found
        self.register_buffer("cluster", torch.tensor(clusters or [], dtype=torch.int64))

    def get_extra_state(self) -> Tensor:
        """Return the epoch in which the clusters were computed."""
        return torch.tensor([self.epoch])

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the epoch in which the clusters were computed.

        Args:
            state: state that :meth:`get_extra_state` returned.
        """
        self.epoch = int(state)

    @property
    def decorrelation(self) -> "DecorrelationOuter":
        """Objective with clusters: this object."""
        return self

    @property
    def ready(self) -> bool:
        """Whether the clusters are known."""
        return not self.searches or len(self.cluster) > 0

    @property
    def min_samples(self) -> int:
        """Smallest number of samples from which clusters can be computed."""
        least = self.num_clusters if isinstance(self.num_clusters, int) else 0
        return max(2 * self.min_count, least)

    def recluster(self, z: Tensor, env: Tensor | None, generator: Generator) -> None:
        """Recompute the clusters.

        Args:
            z: representations of M samples, (M, D).
            env: environment of each sample, int64 (M,); only read where ``source`` is ``environments``.
            generator: random number generator on the CPU that draws the groups.

        Raises:
            DataError: if there are too few samples, or fewer than two environments.
            ValueError: if there are more clusters than variables.
        """
        samples, variables = z.shape
        if isinstance(self.num_clusters, int) and self.num_clusters > variables:
            raise ValueError(
                f"num_clusters is {self.num_clusters}, and the head reads {variables} variables; give at most as many"
            )
        if samples < self.min_samples:
            raise DataError(f"{samples} samples are known; clusters of variables need at least {self.min_samples}")
        if self.source == "environments" and env is not None:
            group = torch.unique(env, return_inverse=True)[1]
            if not int(group.max()):
                raise DataError("all samples are of one environment; use source='groups', or data with several")
        else:
            groups = min(self.num_groups, samples // self.min_count)
            group = (torch.randperm(samples, generator=generator) % groups).to(z.device)
        number = self.num_clusters if isinstance(self.num_clusters, int) else max(2, round((variables / 2) ** 0.5))
        # correlations of nearly constant columns need float64
        dissimilarity = correlation_dissimilarity(z.detach().double(), group, self.min_count)  # (D, D)
        self.cluster = cluster_variables(dissimilarity, min(number, variables)).to(z.device)  # (D,)

    def forward(self, batch: OuterBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the weights and values to log.

        Args:
            batch: representations and weights at this step.
        """
        z = batch.representation  # (S, D)
        shape = (z.size(1), self.num_features)
        # drawn on the CPU, so that a run does not depend on the device
        omega = torch.randn(shape, generator=batch.generator).to(z)  # (D, Q)
        phase = (torch.rand(shape, generator=batch.generator) * (2 * torch.pi)).to(z)
        features = random_fourier_features(z, self.num_features, omega=omega, phase=phase)  # (S, D, Q)
        cluster = self.cluster if len(self.cluster) else None
        loss = decorrelation_loss(features, batch.weight, cluster, estimator=self.estimator)
        return self.scale * loss, {"decorrelation": loss.detach()}


class UnrolledOuter(Recorded, nn.Module):
    r"""Weights under which training steps lower the loss of validation data.

    .. math::
        L(W) = \lambda\, L_{\mathrm{val}}(\theta_T), \qquad
        \theta_{t+1} = \theta_t - \eta \nabla_\theta \frac{1}{B} \sum_n w_n \ell_n(\theta_t), \qquad \theta_0 = \theta

    The steps are virtual: the network's parameters are unchanged. For one step
    :math:`\partial L / \partial w_n = -\frac{\eta}{B} \langle \nabla L_{\mathrm{val}}(\theta_1),
    \nabla \ell_n(\theta) \rangle`: samples whose gradient lowers the validation loss get larger weights. If validation
    and training data have the same distribution, the objective has no signal. With ``decorrelation`` its loss is added.

    Source: arXiv 2312.12475 (the bi-level problem); arXiv 1803.09050 (one step). Differs from the former: it drops the
    dependence of the parameters on the weights, which leaves the decorrelation alone.

    Args:
        parameters: parameters that take the virtual steps: those of the ``head``, on fixed representations, or ``all``.
        steps: number T of virtual steps, at least 1.
        lr: step size :math:`\eta`, above 0. None for the step size of the learner: for the head the inverse of the mean
            of :math:`1 + \lVert z_n \rVert^2`, which bounds the curvature of a linear head; for all parameters the
            learning rate of the network's optimiser. Larger steps overshoot, and increase the weights of the wrong
            samples.
        scale: factor :math:`\lambda` of the validation loss, at least 0.
        decorrelation: decorrelation loss that is added; None for the validation loss alone.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> UnrolledOuter(parameters="all", steps=1, lr=0.1).ready
        True
    """

    needs_validation = True

    def __init__(
        self,
        parameters: Scope = "head",
        *,
        steps: int = 3,
        lr: float | None = None,
        scale: float = 1.0,
        decorrelation: DecorrelationOuter | None = None,
    ) -> None:
        super().__init__()
        if parameters not in ("head", "all"):
            raise ValueError(f"parameters is {parameters!r}; it must be 'head' or 'all'")
        if steps < 1:
            raise ValueError(f"steps is {steps}; it must be at least 1")
        if lr is not None and not lr > 0:
            raise ValueError(f"lr is {lr}; it must be above 0")
        if not scale >= 0:
            raise ValueError(f"scale is {scale}; it must be at least 0")
        self.scope: Scope = parameters
        self.steps = steps
        self.lr = lr
        self.scale = scale
        self.decorrelation = decorrelation

    @property
    def ready(self) -> bool:
        """Whether the objective can be evaluated: always, since a decorrelation without clusters is left out."""
        return True

    def forward(self, batch: OuterBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the weights and values to log.

        Args:
            batch: representations and weights at this step, with a learner.
        """
        if batch.learner is None:
            raise ValueError("batch.learner is None; UnrolledOuter needs a VirtualLearner with validation data")
        learner = batch.learner(self.scope)
        parameters = {name: value.detach().requires_grad_() for name, value in learner.parameters.items()}
        lr = learner.lr if self.lr is None else self.lr
        for _ in range(self.steps):
            terms, sizes = learner.train(parameters)  # (B,), (B,)
            loss = (batch.train_weight * terms).sum() / sizes.sum().clamp(min=1)
            gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True, allow_unused=True)
            parameters = {
                name: value if gradient is None else value - lr * gradient
                for (name, value), gradient in zip(parameters.items(), gradients, strict=True)
            }
        validation = learner.validation(parameters)
        logged = {"validation": validation.detach()}
        total = self.scale * validation
        if self.decorrelation is not None and self.decorrelation.ready:
            value, more = self.decorrelation(batch)
            total, logged = total + value, {**logged, **more}
        return total, logged
