"""Frozen networks, on whose outputs other networks are trained."""

from typing import Any, Self

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from graphseq.core import Recorded

__all__ = ["Frozen"]


class Frozen(Recorded, nn.Module):
    """Network whose parameters get no gradient and whose buffers do not change.

    It stays in evaluation mode: batch norm statistics are not updated, and dropout is off. Since no parameter of it
    requires a gradient, autograd stores no activations of it. Calls and attributes are forwarded to the network, which
    is also the attribute ``module``. Checkpoints hold its weights; those of :class:`graphseq.nn.Pretrained`, which
    reads them from a file, hold a digest instead.

    Args:
        module: the network; its parameters are frozen in place.

    Shape:
        as ``module``

    Raises:
        TypeError: if ``module`` is not a module.

    Example:
        >>> import torch
        >>> from graphseq.core import make
        >>> network = Frozen(make(nn.Sequential, make(nn.Linear, 3, 2), make(nn.BatchNorm1d, 2))).train()
        >>> network(torch.randn(4, 3)).requires_grad, network.module.training
        (False, False)
    """

    module: nn.Module

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise TypeError(f"module is {module!r}; give a network, an object of a class of torch.nn.Module")
        self.module = module.requires_grad_(False).eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output of the network."""
        return self.module(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or "module" not in self.__dict__.get("_modules", {}):
                raise
            return getattr(self.module, name)

    def train(self, mode: bool = True) -> Self:
        """Leave the network in evaluation mode.

        Args:
            mode: value of ``training`` of this wrapper; the wrapped network stays in evaluation mode.
        """
        self.training = mode
        self.module.eval()
        return self


def check_statistics(backbone: nn.Module) -> None:
    """Raise if a frozen network has batch norms whose running statistics training would still update.

    Args:
        backbone: network whose parameters are frozen; one with trained parameters is accepted, since it is fine-tuned.

    Raises:
        ValueError: if ``backbone.train()`` puts a batch norm with running statistics into training mode.

    Example:
        >>> check_statistics(nn.Linear(3, 2).requires_grad_(False))
    """
    if any(parameter.requires_grad for parameter in backbone.parameters()):
        return
    modes = {module: module.training for module in backbone.modules()}
    backbone.train()
    moving = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
    ]
    for module, mode in modes.items():
        module.training = mode
    if moving:
        raise ValueError(
            f"backbone is a {type(backbone).__name__} with frozen parameters whose batch norm {moving[0] or 'itself'} "
            "would still follow the batches in training; give graphseq.nn.Frozen(backbone), or graphseq.nn.Pretrained "
            "of its checkpoint"
        )
