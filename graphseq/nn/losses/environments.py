"""Losses over several environments that penalise differences of risks or features between environments."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphseq.core import DataError, Recorded

__all__ = ["CORAL", "EnvironmentBatch", "GroupDRO", "InvariantRisk", "VarianceRisk"]


@dataclass
class EnvironmentBatch:
    r"""Losses of a batch whose samples come from several environments.

    The risk of an environment is :math:`R_e = \sum_{n \in e} s_n / \sum_{n \in e} c_n`. An environment whose targets
    are all missing has none: means over environments leave it out.

    Args:
        terms: sum of the losses of each sample, :math:`s_n` (B,).
        sizes: number of terms of each sum, :math:`c_n` (B,).
        env: environment of each sample, int64, at least 0 (B,).
        prediction: output of the network, on which ``terms`` depend (B, K).
        representation: input of the network's head (B, D).

    Example:
        >>> terms, env = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0, 0, 3])
        >>> batch = EnvironmentBatch(terms, torch.ones(3), env, terms[:, None], terms[:, None])
        >>> batch.risks()
        tensor([1.5000, 6.0000])
    """

    terms: Tensor
    sizes: Tensor
    env: Tensor
    prediction: Tensor
    representation: Tensor

    def __post_init__(self) -> None:
        """Number the environments of the batch."""
        if self.env.shape != self.terms.shape or self.env.dtype != torch.int64:
            raise DataError(
                f"env is {self.env.dtype} {tuple(self.env.shape)} for {len(self.terms)} samples; it must be int64, "
                "one number for each sample"
            )
        rows = self.terms.shape
        if len(rows) != 1 or not len(self.terms) or self.sizes.shape != rows:
            raise DataError(
                f"terms is {tuple(rows)} and sizes {tuple(self.sizes.shape)}; both must be (B,), with samples"
            )
        for name, value in (("prediction", self.prediction), ("representation", self.representation)):
            if not value.dim() or len(value) != len(self.terms):
                raise DataError(f"{name} is {tuple(value.shape)} for {len(self.terms)} samples; give one row for each")
        self.present, self.number = torch.unique(self.env, return_inverse=True)

    def sums(self, values: Tensor) -> Tensor:
        """Return sums over the samples of each environment of the batch.

        Args:
            values: values of the samples (B, *).
        """
        return values.new_zeros(len(self.present), *values.shape[1:]).index_add(0, self.number, values)

    def means(self, values: Tensor) -> Tensor:
        """Return sums over the samples of each environment, divided by its number of terms.

        Args:
            values: values of the samples (B,).
        """
        return self.sums(values) / self.sums(self.sizes).clamp(min=1)

    def risks(self) -> Tensor:
        """Return the risk of each environment of the batch; 0 where it has no term."""
        return self.means(self.terms)

    def measured(self, values: Tensor) -> Tensor:
        """Return the values of the environments that have a term, such as a known target; all values if none has.

        Args:
            values: values of the environments of the batch, (E,).
        """
        kept = (self.sums(self.sizes) > 0).nonzero().squeeze(1)
        return values[kept] if len(kept) else values


class _Penalized(Recorded, nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        if not scale >= 0:
            raise ValueError(f"scale is {scale}; it must be at least 0")
        self.scale = scale

    def penalty(self, batch: EnvironmentBatch) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define penalty")

    def forward(self, batch: EnvironmentBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch and values to log.

        Args:
            batch: losses of the samples with their environments.
        """
        penalty = self.penalty(batch)
        return batch.measured(batch.risks()).mean() + self.scale * penalty, {"environment_penalty": penalty.detach()}


class InvariantRisk(_Penalized):
    r"""Mean risk, and how far a common scale of the outputs is from being optimal in each environment (IRMv1).

    .. math:: L = \operatorname{mean}_e R_e(f) + \lambda \operatorname{mean}_e
        \bigl(\nabla_{v | v = 1} R_e(v f)\bigr)^2

    Source: arXiv 1907.02893 (IRMv1). Differs from it: means over environments instead of sums.

    Args:
        scale: weight :math:`\lambda` of the penalty, at least 0.

    Raises:
        ValueError: if ``scale`` is negative.

    Example:
        >>> f = torch.tensor([[2.0], [1.0]], requires_grad=True)
        >>> batch = EnvironmentBatch((f[:, 0] - 1) ** 2, torch.ones(2), torch.tensor([0, 1]), f, f)
        >>> InvariantRisk(scale=1.0)(batch)[0]
        tensor(8.5000, grad_fn=...)
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(scale)

    def penalty(self, batch: EnvironmentBatch) -> Tensor:
        """Return the mean over environments of the squared derivative.

        Args:
            batch: losses of the samples with their environments.
        """
        if not batch.terms.requires_grad:
            raise DataError(
                "terms do not depend on prediction by a gradient; InvariantRisk needs one, so give losses that were "
                "computed with gradients from that prediction"
            )
        # the derivative of a sample's loss by the common scale is its gradient times its output
        (gradient,) = torch.autograd.grad(batch.terms.sum(), batch.prediction, create_graph=True)
        derivative = batch.means((gradient * batch.prediction).reshape(len(gradient), -1).sum(1))
        return batch.measured(derivative).square().mean()


class VarianceRisk(_Penalized):
    r"""Mean of the risks and their variance (V-REx).

    .. math:: L = \operatorname{mean}_e R_e + \lambda \operatorname{mean}_e (R_e - \operatorname{mean}_{e'} R_{e'})^2

    Source: arXiv 2003.00688. Differs from it: the mean of the risks instead of their sum.

    Args:
        scale: weight :math:`\lambda` of the penalty, at least 0.

    Raises:
        ValueError: if ``scale`` is negative.

    Example:
        >>> terms = torch.tensor([1.0, 3.0])
        >>> VarianceRisk(scale=2.0)(EnvironmentBatch(terms, torch.ones(2), torch.tensor([0, 1]), terms, terms))[0]
        tensor(4.)
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(scale)

    def penalty(self, batch: EnvironmentBatch) -> Tensor:
        """Return the variance of the risks.

        Args:
            batch: losses of the samples with their environments.
        """
        return batch.measured(batch.risks()).var(correction=0)


class CORAL(_Penalized):
    r"""Mean risk, and how much the covariances of the representation differ between environments.

    .. math:: L = \operatorname{mean}_e R_e + \lambda \operatorname{mean}_{e < e'}
        \frac{1}{4 D^2} \lVert C_e - C_{e'} \rVert_F^2

    over the environments with at least two samples in the batch, :math:`C_e` with the divisor :math:`n_e - 1`.

    Source: arXiv 1607.01719, eq. 1. Differs from it: all pairs of training environments instead of source and target.

    Args:
        scale: weight :math:`\lambda` of the penalty, at least 0.

    Raises:
        ValueError: if ``scale`` is negative.

    Example:
        >>> z, env = torch.tensor([[0.0], [2.0], [0.0], [4.0]]), torch.tensor([0, 0, 1, 1])
        >>> CORAL(scale=1.0)(EnvironmentBatch(torch.zeros(4), torch.ones(4), env, z, z))[0]
        tensor(9.)
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(scale)

    def penalty(self, batch: EnvironmentBatch) -> Tensor:
        """Return the mean over pairs of environments.

        Args:
            batch: losses of the samples with their environments.
        """
        z = batch.representation
        if z.dim() != 2:
            raise DataError(f"representation is {tuple(z.shape)}; CORAL needs one vector for each sample, (B, D)")
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        count = batch.sums(torch.ones_like(z[:, 0]))
        centred = z - (batch.sums(z) / count[:, None]).index_select(0, batch.number)
        member = torch.nn.functional.one_hot(batch.number, len(count)).to(z.dtype)
        covariance = torch.bmm((member.T[:, :, None] * centred).transpose(1, 2), centred.expand(len(count), -1, -1))
        covariance = covariance / (count - 1).clamp(min=1)[:, None, None]
        enough = (count > 1).to(z.dtype)[:, None, None]
        number = enough.sum()
        # pairs from the distances to the mean: sum over e < e' of |C_e - C_e'|^2 = E sum over e of |C_e - mean|^2
        distance = enough * (covariance - (enough * covariance).sum(0) / number.clamp(min=1))
        pairs = (number * (number - 1) / 2).clamp(min=1)
        return number * distance.square().sum() / (pairs * 4 * z.size(1) ** 2)


class GroupDRO(Recorded, nn.Module):
    r"""Risks weighted towards the environment with the largest risk.

    .. math:: q_e \leftarrow \frac{q_e\, e^{\eta R_e}}{\sum_{e'} q_{e'}\, e^{\eta R_{e'}}}, \qquad L = \sum_e q_e R_e

    An environment that is not in the batch, or has no known target in it, has the risk 0 there. The weights q are
    updated only in training mode.

    Source: arXiv 1911.08731, algorithm 1. Differs from it: all environments of a batch are updated at once.

    Args:
        num_environments: number of environments E, numbered from 0 to E - 1.
        step_size: step size :math:`\eta` of the shares, at least 0.

    Shape:
        :class:`EnvironmentBatch` -> scalar loss, and a dictionary of scalars to log

    Raises:
        ValueError: if an argument is out of range.
        DataError: in a step, if an environment is out of range.

    Example:
        >>> loss = GroupDRO(num_environments=2, step_size=1.0)
        >>> terms = torch.tensor([0.0, 1.0])
        >>> loss(EnvironmentBatch(terms, torch.ones(2), torch.tensor([0, 1]), terms, terms))[0]
        tensor(0.7311)
    """

    share: Tensor

    def __init__(self, num_environments: int, step_size: float = 0.01) -> None:
        super().__init__()
        if num_environments < 1:
            raise ValueError(f"num_environments is {num_environments}; it must be at least 1")
        if not step_size >= 0:
            raise ValueError(f"step_size is {step_size}; it must be at least 0")
        self.step_size = step_size
        self.register_buffer("share", torch.full((num_environments,), 1 / num_environments))

    def forward(self, batch: EnvironmentBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch and values to log.

        Args:
            batch: losses of the samples with their environments.
        """
        last = int(batch.present[-1])
        if int(batch.present[0]) < 0 or last >= len(self.share):
            raise DataError(
                f"environments range from {int(batch.present[0])} to {last}; with num_environments={len(self.share)} "
                f"they must be in 0..{len(self.share) - 1}"
            )
        risks = batch.risks()
        if self.training:
            with torch.no_grad():
                # a share that has become 0 could never grow again
                known = self.share.clamp(min=torch.finfo(self.share.dtype).tiny).log()
                grown = known.index_add(0, batch.present, self.step_size * risks.detach().to(self.share))
                self.share.copy_(grown.softmax(0))
        loss = (self.share.to(risks)[batch.present] * risks).sum()
        return loss, {"worst_environment": risks.detach().max()}
