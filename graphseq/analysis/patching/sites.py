"""Sites: the activations of a network that are patched."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["PatchingSite", "block_sites"]


@dataclass(frozen=True)
class PatchingSite:
    """One kind of activation in several layers: the input or the output of each layer that a pattern names.

    Args:
        name: name of the kind, such as ``residual``.
        layers: dotted names of the layers, where ``*`` stands for any text without a dot: ``layers.blocks.*.mixer``.
        where: ``input``, the first argument of the layers, or ``output``, the output or the first entry of a tuple of
            outputs.
        axis: axis of the positions: 1 for steps of sequences (B, T, D), 0 for nodes of graphs (N, D).

    Raises:
        ValueError: if ``where`` is neither ``input`` nor ``output``.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> [name for name, layer in PatchingSite("hidden", "*").found(network)]
        ['0', '1']
    """

    name: str
    layers: str
    where: Literal["input", "output"] = "output"
    axis: int = 1

    def __post_init__(self) -> None:
        if self.where not in get_args(Literal["input", "output"]):
            raise ValueError(f"where is {self.where!r}; give input or output")

    def found(self, model: nn.Module) -> list[tuple[str, nn.Module]]:
        """Return the layers of the site with their names, in the order of the network.

        Args:
            model: network.

        Raises:
            ValueError: if the pattern names no layer.
        """
        parts = self.layers.split(".")
        named = [(name, layer) for name, layer in model.named_modules() if name]
        found = [(name, layer) for name, layer in named if _matches(name.split("."), parts)]
        if not found:
            raise ValueError(
                f"layers of the site {self.name!r} is {self.layers!r}, which names no layer of {type(model).__name__}; "
                f"its layers are {', '.join(name for name, _ in named) or 'none'}"
            )
        return found

    def hook(self, layer: nn.Module, function: Any) -> RemovableHandle:
        """Replace the activation of a layer by a function of it, until the handle is removed.

        Args:
            layer: layer of the site.
            function: function from tensor to tensor.
        """
        if self.where == "output":
            return layer.register_forward_hook(lambda _, args, output: self._exchanged(output, function))
        return layer.register_forward_pre_hook(lambda _, args: self._exchanged(tuple(args), function))

    def _exchanged(self, value: Any, function: Any) -> Any:
        first = value[0] if isinstance(value, tuple) and value else value
        if not isinstance(first, Tensor) or not first.is_floating_point():
            raise TypeError(
                f"the {self.where} of layers {self.layers!r} begins with a "
                f"{first.dtype if isinstance(first, Tensor) else type(first).__name__}; a tensor of real numbers is "
                "needed, as first positional argument or as (first) output"
            )
        if not -first.dim() <= self.axis < first.dim():
            raise ValueError(
                f"axis is {self.axis}, and the {self.where} of layers {self.layers!r} is {tuple(first.shape)}; give "
                "the axis of the positions: 1 for steps (B, T, D), 0 for nodes (N, D)"
            )
        new = function(first)
        return (new, *value[1:]) if isinstance(value, tuple) else new

    def per_position(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all axes but that of the positions.

        Args:
            value: tensor of the shape of the activation.
        """
        return value.movedim(self.axis, 0).flatten(1).sum(1) if value.dim() > 1 else value

    def patched(self, value: Tensor, other: Tensor, position: int) -> Tensor:
        """Return an activation in which one position is taken from another activation.

        Args:
            value: activation.
            other: activation that gives the position.
            position: number of the position.
        """
        index = torch.tensor([position], device=value.device)
        return value.index_copy(self.axis, index, other.index_select(self.axis, index).to(value.dtype))


def _matches(name: list[str], parts: list[str]) -> bool:
    return len(name) == len(parts) and all(map(fnmatchcase, name, parts))


def block_sites(stack: str = "layers") -> list[PatchingSite]:
    """Return the usual sites of a stack of blocks: residual stream before each block, attention and MLP outputs.

    Args:
        stack: dotted name of the :class:`graphseq.nn.BlockStack` in the network.

    Example:
        >>> [site.layers for site in block_sites("recurrent")]
        ['recurrent.blocks.*', 'recurrent.blocks.*.mixer', 'recurrent.blocks.*.feed_forward']
    """
    return [
        PatchingSite("residual", f"{stack}.blocks.*", "input"),
        PatchingSite("attention", f"{stack}.blocks.*.mixer"),
        PatchingSite("mlp", f"{stack}.blocks.*.feed_forward"),
    ]
