"""Residual blocks of convolutions, basic and with a bottleneck, and stages of them."""

from typing import Literal, get_args

from torch import Tensor, nn

from graphseq.core import Recorded

__all__ = ["ResidualBlock", "ResidualStage"]

BlockKind = Literal["basic", "bottleneck"]
NormKind = Literal["batch", "group"]

_GROUPS = 8


def norm_of_channels(norm: NormKind, channels: int) -> nn.Module:
    """Return the normalisation of a feature map: batch norm, or group norm with 8 groups.

    Args:
        norm: ``batch`` or ``group``.
        channels: number of channels; a multiple of 8 for ``group``.

    Raises:
        ValueError: if the norm is unknown, or the channels do not form groups.

    Example:
        >>> norm_of_channels("group", 16).num_groups
        8
    """
    if norm not in get_args(NormKind):
        raise ValueError(f"norm is {norm!r}; it must be 'batch' or 'group'")
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if channels % _GROUPS:
        raise ValueError(f"norm is 'group' and there are {channels} channels; give a multiple of {_GROUPS}")
    return nn.GroupNorm(_GROUPS, channels)


class ResidualBlock(Recorded, nn.Module):
    r"""Residual block of two convolutions 3 x 3 (basic), or of 1 x 1, 3 x 3 and 1 x 1 (bottleneck).

    .. math:: y = \mathrm{ReLU}(f(x) + s(x))

    with s the identity, or a convolution 1 x 1 with norm where resolution or width change. The bottleneck has the
    stride in its middle convolution.

    Source: arXiv 1512.03385, sections 3.3 and 4.1. Differs from it: the place of the stride in the bottleneck, as in
    most implementations; there is a choice of norms.

    Args:
        in_channels: number of channels of the input.
        channels: width of the block; a bottleneck gives four times as many channels.
        stride: stride along rows and columns, at least 1.
        kind: ``basic`` or ``bottleneck``.
        norm: ``batch``, or ``group`` for group norm with 8 groups, under which images do not depend on the rest of the
            batch.

    Shape:
        x (B, in_channels, Y, X) -> (B, out_channels, ceil(Y / stride), ceil(X / stride))

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> import torch
        >>> ResidualBlock(16, 8, stride=2, kind="bottleneck")(torch.randn(2, 16, 8, 8)).shape
        torch.Size([2, 32, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        kind: BlockKind = "basic",
        norm: NormKind = "batch",
    ) -> None:
        super().__init__()
        for name, size in {"in_channels": in_channels, "channels": channels, "stride": stride}.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        if kind not in get_args(BlockKind):
            raise ValueError(f"kind is {kind!r}; it must be 'basic' or 'bottleneck'")
        self.in_channels, self.out_channels = in_channels, channels * (4 if kind == "bottleneck" else 1)

        def convolution(before: int, after: int, kernel: int, step: int = 1) -> list[nn.Module]:
            layer = nn.Conv2d(before, after, kernel, step, padding=kernel // 2, bias=False)
            return [layer, norm_of_channels(norm, after)]

        if kind == "basic":
            body = [*convolution(in_channels, channels, 3, stride), nn.ReLU(), *convolution(channels, channels, 3)]
        else:
            body = [
                *convolution(in_channels, channels, 1),
                nn.ReLU(),
                *convolution(channels, channels, 3, stride),
                nn.ReLU(),
                *convolution(channels, self.out_channels, 1),
            ]
        self.body = nn.Sequential(*body)
        same = stride == 1 and in_channels == self.out_channels
        self.shortcut = nn.Sequential(*([] if same else convolution(in_channels, self.out_channels, 1, stride)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the convolutions by He's rule and reset the norms."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
                module.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the block.

        Args:
            x: feature map (B, in_channels, Y, X).
        """
        return (self.body(x) + self.shortcut(x)).relu()


class ResidualStage(Recorded, nn.Module):
    """Residual blocks of one width one after the other, the first of which may have a stride.

    Args:
        in_channels: number of channels of the input.
        channels: width of the blocks.
        num_blocks: number of blocks, at least 1.
        stride: stride of the first block.
        kind: ``basic`` or ``bottleneck``, see :class:`ResidualBlock`.
        norm: ``batch`` or ``group``.

    Shape:
        x (B, in_channels, Y, X) -> (B, out_channels, ceil(Y / stride), ceil(X / stride))

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> import torch
        >>> ResidualStage(16, 32, num_blocks=2, stride=2)(torch.randn(2, 16, 8, 8)).shape
        torch.Size([2, 32, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_blocks: int = 1,
        stride: int = 1,
        kind: BlockKind = "basic",
        norm: NormKind = "batch",
    ) -> None:
        super().__init__()
        if num_blocks < 1:
            raise ValueError(f"num_blocks is {num_blocks}; it must be at least 1")
        blocks = [ResidualBlock(in_channels, channels, stride, kind, norm)]
        for _ in range(num_blocks - 1):
            blocks.append(ResidualBlock(blocks[-1].out_channels, channels, 1, kind, norm))
        self.blocks = nn.Sequential(*blocks)
        self.in_channels, self.out_channels = in_channels, blocks[-1].out_channels

    def reset_parameters(self) -> None:
        """Reinitialise all blocks."""
        for block in self.blocks:
            block.reset_parameters()  # type: ignore[operator]  # a residual block

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the last block.

        Args:
            x: feature map (B, in_channels, Y, X).
        """
        return self.blocks(x)
