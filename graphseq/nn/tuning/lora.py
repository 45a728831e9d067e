"""Low-rank changes of the linear layers of a frozen network."""

import functools
import math
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn.causal import positive
from graphseq.nn.tuning.frozen import check_statistics

__all__ = ["LoRA"]


class LoRA(Recorded, nn.Module):
    r"""Frozen network whose linear layers have a trained change of low rank added to them.

    .. math:: y = W x + b + \frac{\alpha}{r}\, B A\, x

    A (r, in) is initialised as the weights of ``torch.nn.Linear`` are, and B (out, r) with 0, so that at first the
    output is that of the frozen network. The new weights belong to this module and not to the network: checkpoints of a
    LoRA around :class:`graphseq.nn.Pretrained` hold only them. Hooks on the layers add the changes, so that another
    module that holds the same network has them too. Calls and attributes are forwarded to the network, which is also
    the attribute ``module``.

    Source: arXiv 2106.09685, eq. 3. Differs from it: all linear layers are changed by default, and there is no dropout.

    Args:
        module: the frozen network, such as :class:`graphseq.nn.Pretrained` or :class:`graphseq.nn.Frozen`.
        rank: rank r of a change, at least 1.
        alpha: scale :math:`\alpha` of the changes, above 0; None for twice the rank.
        layers: patterns of dotted names of the layers in ``module``, such as ``*.projection``; None for all layers of
            the class ``torch.nn.Linear``.

    Shape:
        as the frozen network

    Raises:
        ValueError: if parameters of the network require gradients, its batch norms would still update their statistics,
            an argument is outside its range, or a pattern matches no linear layer.

    Example:
        >>> import torch
        >>> from graphseq.nn import FeedForward, Frozen
        >>> network = LoRA(Frozen(FeedForward(4, hidden_channels=8)), rank=1)
        >>> sum(p.numel() for p in network.parameters() if p.requires_grad), network(torch.ones(3, 4)).shape
        (24, torch.Size([3, 4]))
    """

    module: nn.Module

    def __init__(
        self, module: nn.Module, rank: int = 8, alpha: float | None = None, layers: list[str] | None = None
    ) -> None:
        super().__init__()
        positive(rank=rank)
        alpha = 2.0 * rank if alpha is None else alpha
        if not (math.isfinite(alpha) and alpha > 0):
            raise ValueError(f"alpha is {alpha}; give a number above 0")
        trained = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        if trained:
            raise ValueError(
                f"module is a {type(module).__name__} whose {trained[0]} and {len(trained) - 1} more parameters are "
                "trained; give graphseq.nn.Frozen(network), or graphseq.nn.Pretrained of its checkpoint"
            )
        check_statistics(module)
        self.module, self.rank, self.scale = module, rank, alpha / rank
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for name, layer in _chosen(module, layers).items():
            key = name.replace(".", "-")  # a name of a parameter has no dots
            weight = layer.weight
            self.down[key] = nn.Parameter(weight.new_empty(rank, layer.in_features))
            self.up[key] = nn.Parameter(weight.new_empty(layer.out_features, rank))
            layer.register_forward_hook(functools.partial(self._changed, key))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the changes to 0, with new matrices A."""
        for down in self.down.values():
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        for up in self.up.values():
            nn.init.zeros_(up)

    def _changed(self, key: str, layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        reduced = nn.functional.linear(inputs[0], self.down[key])  # (*, r)
        return output + self.scale * nn.functional.linear(reduced, self.up[key])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output of the changed network."""
        return self.module(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or "module" not in self.__dict__.get("_modules", {}):
                raise
            return getattr(self.module, name)

    def extra_repr(self) -> str:
        """Return rank and scale."""
        return f"rank={self.rank}, scale={self.scale:g}"


def _chosen(module: nn.Module, patterns: list[str] | None) -> dict[str, nn.Linear]:
    """Return the linear layers that the patterns name; all of them without patterns."""
    if isinstance(patterns, str) or (patterns is not None and not patterns):
        raise ValueError(f"layers is {patterns!r}; give a list of patterns of names, or None for all linear layers")
    linear = {name: layer for name, layer in module.named_modules() if type(layer) is nn.Linear}
    wrong = [p for p in patterns or [] if not any(fnmatchcase(name, p) for name in linear)]
    if not linear:
        raise ValueError(
            f"module is a {type(module).__name__} without a torch.nn.Linear; give a network with linear layers"
        )
    if wrong:
        raise ValueError(f"layers has {wrong[0]!r}, which matches no linear layer; there are {', '.join(linear)}")
    if patterns is None:
        return linear
    return {name: layer for name, layer in linear.items() if any(fnmatchcase(name, p) for p in patterns)}
