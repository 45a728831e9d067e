"""Linear and convolutional layers with a mask of their weights."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from graphseq.core.random import seeded
from graphseq.core.spec import Recorded
from graphseq.core.surgery import replace
from graphseq.nn.sparse.rewirable import Preserve, kept_entries
from graphseq.sparsity.formats.masked import masked_linear

__all__ = ["MaskedConv2d", "MaskedLinear", "mask_layers"]


@torch.no_grad()
def _set_mask(weight: Tensor, old: Tensor, new: Tensor) -> None:
    if new.shape != old.shape or new.dtype != torch.bool:
        raise ValueError(f"mask is {new.dtype} {tuple(new.shape)}; it must be bool {tuple(old.shape)}")
    # momentum may have moved weights that did not exist: those that begin to exist are zeroed as well
    weight.masked_fill_(~(old & new), 0.0)
    old.copy_(new)


class MaskedLinear(Recorded, nn.Linear):
    r"""Linear layer whose weights are nonzero only where its mask is true.

    .. math:: y = x\, (W \odot M)^\top + b

    The mask is a buffer: it moves with the module and is in checkpoints, so that the layer does not depend on the
    callback that set it. A callback that prunes or rewires sets the mask by :meth:`set_mask` and stores its own state
    in its ``state_dict``. Weights outside the mask get no gradient and are set to zero, so that a weight that is
    enabled again starts from zero.

    Args:
        in_features: size of each input sample.
        out_features: size of each output sample.
        bias: whether an additive bias is learned; it is never masked.

    Shape:
        input (*, in_features) -> output (*, out_features)

    Example:
        >>> layer = MaskedLinear(3, 2)
        >>> layer.set_mask(torch.tensor([[True, False, False], [False, False, True]]))
        >>> layer.weight.count_nonzero().item(), layer.density
        (2, 0.3333333432674408)
    """

    mask: Tensor

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self.register_buffer("mask", torch.ones(out_features, in_features, dtype=torch.bool))

    @property
    def density(self) -> float:
        """Share of the weights inside the mask. Reading it synchronises with the device."""
        return float(self.mask.float().mean())

    def set_mask(self, mask: Tensor) -> None:
        """Set the mask, and set the weights outside it to zero.

        Args:
            mask: true for weights that are kept, bool (out_features, in_features).

        Raises:
            ValueError: if the shape or type differs.
        """
        _set_mask(self.weight, self.mask, mask)

    def forward(self, input: Tensor) -> Tensor:
        """Return the affine map with the masked weights."""
        return masked_linear(input, self.weight, self.mask, self.bias)

    def dense_weight(self) -> Tensor:
        """Return the weight with zeros outside the mask (out_features, in_features)."""
        return self.weight * self.mask

    def connections(self) -> Tensor:
        """Return the mask (out_features, in_features)."""
        return self.mask

    def pool(self, score: Tensor, kind: Literal["norm", "mean"]) -> Tensor:
        """Return the scores of weights as they are: a connection is one weight.

        Args:
            score: score of each weight (out_features, in_features).
            kind: no effect here.
        """
        return score

    def budgets(self, preserve: Preserve) -> Tensor:
        """Return one budget for all weights; the layer has no groups.

        Args:
            preserve: no effect here.
        """
        return torch.zeros_like(self.mask, dtype=torch.int64)

    def rewire(self, connections: Tensor) -> dict[str, Tensor]:
        """Set another mask, and return where the entries of the weight were before.

        Args:
            connections: true for weights that exist from now on (out_features, in_features).
        """
        before = self.mask.clone()
        self.set_mask(connections)
        return {"weight": kept_entries(before, connections)}


class MaskedConv2d(Recorded, nn.Conv2d):
    r"""Convolution of images whose weights are nonzero only where its mask is true.

    .. math:: y = (W \odot M) * x + b

    The mask is a buffer, as that of :class:`MaskedLinear`: weights outside it get no gradient and are zero.

    Args:
        in_channels: number of channels of the images.
        out_channels: number of channels of the output.
        kernel_size: size of the kernel, in pixels.
        stride: stride, in pixels.
        padding: padding on each side, in pixels, or ``same`` or ``valid``.
        dilation: distance between the points of the kernel, in pixels.
        groups: number of groups of channels that do not mix.
        bias: whether an additive bias is learned; it is never masked.
        padding_mode: kind of padding, as ``torch.nn.Conv2d`` takes it.

    Shape:
        input (B, in_channels, Y, X) -> output (B, out_channels, Y', X')

    Example:
        >>> layer = MaskedConv2d(1, 2, 3)
        >>> layer.set_mask(torch.rand(2, 1, 3, 3) < 0.5)
        >>> layer(torch.ones(1, 1, 8, 8)).shape
        torch.Size([1, 2, 6, 6])
    """

    mask: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode)
        self.register_buffer("mask", torch.ones_like(self.weight, dtype=torch.bool))

    @property
    def density(self) -> float:
        """Share of the weights inside the mask. Reading it synchronises with the device."""
        return float(self.mask.float().mean())

    def set_mask(self, mask: Tensor) -> None:
        """Set the mask, and set the weights outside it to zero.

        Args:
            mask: true for weights that are kept, bool, of the shape of the weight.

        Raises:
            ValueError: if the shape or type differs.
        """
        _set_mask(self.weight, self.mask, mask)

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution with the masked weights."""
        return self._conv_forward(input, self.weight * self.mask, self.bias)


def mask_layers(network: nn.Module, exclude: Sequence[str] = ()) -> dict[str, MaskedLinear | MaskedConv2d]:
    """Replace ``nn.Linear`` and ``nn.Conv2d`` of a network by masked layers with the same weights.

    It is recorded, so that a checkpoint of the network rebuilds it; no random number is drawn. Names of weights in
    ``state_dict`` stay, and masks are added. Layers that are masked already stay.

    Args:
        network: the network, such as the ``model`` of a task, before it is trained.
        exclude: layers that are left as they are, by their names or those of parts that they lie in, such as ``head``
            or ``encoder.0``.

    Returns:
        All masked layers that are not excluded, by their dotted names.

    Raises:
        ValueError: if there are none.
        TypeError: if ``network`` is not a module, or ``exclude`` a string.

    Example:
        >>> from graphseq.models import MLP
        >>> sorted(mask_layers(MLP(4, 2, num_layers=3), exclude=["head"]))
        ['hidden.0.0', 'hidden.1.0']
    """
    if not isinstance(network, nn.Module):
        given = f"the class {network.__name__}" if isinstance(network, type) else f"a {type(network).__name__}"
        raise TypeError(f"network is {given}; give a module that is built")
    if isinstance(exclude, str):  # its letters would be taken for names
        raise TypeError(f"exclude is {exclude!r}; give a list of names, such as [{exclude!r}]")
    left = set(exclude)

    def excluded(name: str) -> bool:
        return bool(left & set(name.split("."))) or any(f"{name}.".startswith(f"{part}.") for part in left)

    def chosen(name: str, layer: nn.Module) -> bool:
        return type(layer) in (nn.Linear, nn.Conv2d) and not excluded(name)

    if any(chosen(name, layer) for name, layer in network.named_modules()):
        with seeded(0):  # the initial weights of the new layers are not used
            replace(network, chosen, _masked)
    found = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, MaskedLinear | MaskedConv2d) and not excluded(name)
    }
    if not found:
        raise ValueError(
            f"{type(network).__name__} has no linear or two-dimensional convolutional layer outside exclude="
            f"{list(exclude)}; there is nothing to mask"
        )
    return found


def _masked(layer: nn.Module) -> nn.Module:
    new: MaskedLinear | MaskedConv2d
    if isinstance(layer, nn.Linear):
        new = MaskedLinear(layer.in_features, layer.out_features, layer.bias is not None)
    else:
        old: Any = layer
        new = MaskedConv2d(
            old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, old.dilation, old.groups,
            old.bias is not None, old.padding_mode,
        )  # fmt: skip
    # the parameters themselves: weights that are shared with another layer stay shared
    new.weight, new.bias = layer.weight, layer.bias  # type: ignore[assignment]
    return new
