"""Zeros among activations: their share, and units of ReLU layers whose output is zero, and why it is."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["ActivationSparsity", "DeadNeuronRate", "activation_sparsity", "dead_neuron_rate"]


def dead_neuron_rate(activation: Tensor, connected: Tensor | None = None) -> dict[str, Tensor]:
    r"""Return which shares of the units of a ReLU layer are dead, by cause.

    A unit is dead on a sample if its output there is 0: *dynamically* if it has a weight from some input, so that the
    ReLU made it so, *statically* if all its weights are pruned.

    .. math:: d_{\mathrm{dynamic}} = \frac{1}{B N} \sum_{b, j} [h_{bj} = 0]\, c_j, \qquad
        d_{\mathrm{static}} = \frac{1}{B N} \sum_{b, j} [h_{bj} = 0]\, (1 - c_j)

    ``always`` is the share of the units that are dead on all samples. A unit without weights whose bias is above 0 is
    alive.

    Source: the abstract of arXiv 2212.06145 for the distinction; the formulas are of this library, since the body of
    the paper could not be read.

    Args:
        activation: outputs of the ReLU; each position of a map of features counts as a unit.
        connected: whether a unit has any weight, bool, broadcast against a sample; None where all have.

    Returns:
        Scalars ``dynamic``, ``static`` and ``always``.

    Shape:
        activation (B, \*), connected broadcast to (\*)

    Raises:
        ValueError: if there is no sample or no unit, or the shapes do not fit.

    Example:
        >>> outputs = torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.0, 2.0, 0.0, 0.0]])
        >>> found = dead_neuron_rate(outputs, torch.tensor([True, True, True, False]))
        >>> {name: float(value) for name, value in found.items()}
        {'dynamic': 0.5, 'static': 0.25, 'always': 0.5}
    """
    dead, linked = _dead(activation, connected)
    return {
        "dynamic": (dead & linked).double().mean().float(),
        "static": (dead & ~linked).double().mean().float(),
        "always": dead.all(0).double().mean().float(),
    }


def _dead(activation: Tensor, connected: Tensor | None) -> tuple[Tensor, Tensor]:
    if activation.dim() < 2 or not activation.numel():
        raise ValueError(f"activation is {tuple(activation.shape)}; it must be (B, *), neither B nor * empty")
    dead = activation.detach() == 0
    linked = torch.ones_like(dead[0]) if connected is None else connected
    try:
        linked = linked.expand_as(dead[0])
    except RuntimeError as error:
        raise ValueError(
            f"connected is {tuple(linked.shape)}; it must broadcast to {tuple(dead[0].shape)}, a sample of activation"
        ) from error
    return dead, linked


class DeadNeuronRate(Metric):
    """Shares of dead units of a ReLU layer over all samples; reduction over processes: sums, and an "ever alive".

    ``compute`` returns ``dynamic``, ``static`` and ``always``, as :func:`dead_neuron_rate` does for one batch; NaN
    before the first batch.

    Args:
        kwargs: further arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: in ``update``, if the units are not those of the batches before.

    Example:
        >>> metric = DeadNeuronRate()
        >>> metric.update(torch.tensor([[0.0, 1.0]]))
        >>> metric.update(torch.tensor([[0.0, 0.0], [2.0, 0.0]]))
        >>> {name: round(float(value), 3) for name, value in metric.compute().items()}
        {'dynamic': 0.667, 'static': 0.0, 'always': 0.0}
    """

    full_state_update = False
    is_differentiable = False
    num_dynamic: Tensor
    num_static: Tensor
    num_seen: Tensor
    alive: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("num_dynamic", "num_static", "num_seen"):
            self.add_state(name, default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("alive", default=torch.zeros(0, dtype=torch.int32), dist_reduce_fx="max")

    def update(self, activation: Tensor, connected: Tensor | None = None) -> None:
        """Count one batch.

        Args:
            activation: outputs of the ReLU (B, *).
            connected: whether a unit has any weight, bool, broadcast against a sample; None where all have.
        """
        dead, linked = _dead(activation, connected)
        alive = (~dead).any(0).flatten().int()  # (units,)
        if self.alive.numel() and self.alive.shape != alive.shape:
            raise ValueError(f"activation has {len(alive)} units a sample, the batches before had {len(self.alive)}")
        self.alive = torch.maximum(self.alive, alive) if self.alive.numel() else alive
        self.num_dynamic += (dead & linked).sum()
        self.num_static += (dead & ~linked).sum()
        self.num_seen += dead.numel()

    @property
    def num_units(self) -> int:
        """Number of units of a sample; 0 before the first batch."""
        return len(self.alive)

    def compute(self) -> dict[str, Tensor]:
        """Return the three shares by name."""
        never = (self.alive == 0).double().mean()
        return {
            "dynamic": self.num_dynamic / self.num_seen,
            "static": self.num_static / self.num_seen,
            "always": never.float(),
        }


def activation_sparsity(activation: Tensor, inside: Tensor | None = None) -> Tensor:
    r"""Return the share of zeros among activations.

    .. math:: \frac{1}{N H} \sum_{t, j} [s_{tj} = 0]

    over N tokens that are no padding, and H units.

    Source: arXiv 2402.13516, section 3.1. Differs from it: none.

    Args:
        activation: activations of the tokens.
        inside: whether a token counts, bool; None where all do.

    Shape:
        activation (\*, H), inside (\*) -> scalar, NaN if no token counts

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> gate = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
        >>> float(activation_sparsity(gate, torch.tensor([True, True, False])))
        0.75
    """
    zeros, seen = _zeros(activation, inside)
    return zeros / seen


def _zeros(activation: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the number of zeros, and of entries."""
    zero = activation.detach() == 0
    if inside is None:
        return zero.sum(), torch.tensor(zero.numel(), device=zero.device)
    if inside.shape != activation.shape[:-1]:
        raise ValueError(
            f"inside is {tuple(inside.shape)} and activation {tuple(activation.shape)}; inside must have one entry for "
            "each token, all dimensions but the last"
        )
    return (zero & inside[..., None]).sum(), inside.sum() * zero.shape[-1]


class ActivationSparsity(Metric):
    """Share of zeros among the activations of a layer over all tokens; reduction over processes: sums.

    It computes what :func:`activation_sparsity` does over all batches; NaN before the first one.

    Args:
        kwargs: further arguments of ``torchmetrics.Metric``.

    Example:
        >>> metric = ActivationSparsity()
        >>> metric.update(torch.tensor([[0.0, 1.0]]))
        >>> metric.update(torch.tensor([[0.0, 0.0]]))
        >>> float(metric.compute())
        0.75
    """

    full_state_update = False
    is_differentiable = False
    num_zero: Tensor
    num_seen: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("num_zero", "num_seen"):
            self.add_state(name, default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, activation: Tensor, inside: Tensor | None = None) -> None:
        """Count one batch.

        Args:
            activation: activations (*, H).
            inside: whether a token counts, bool (*); None where all do.
        """
        zeros, seen = _zeros(activation, inside)
        self.num_zero += zeros
        self.num_seen += seen

    def compute(self) -> Tensor:
        """Return the share."""
        return self.num_zero / self.num_seen
