"""Bottleneck blocks with a spatial and a temporal convolution in place of one in space and time."""

from typing import Literal, get_args

from torch import Tensor, nn

from graphseq.core.spec import Recorded

__all__ = ["P3DBlock"]

Kind = Literal["A", "B", "C", "2d"]


class P3DBlock(Recorded, nn.Module):
    r"""Residual bottleneck whose middle is a spatial convolution 1 x 3 x 3 and a temporal one 3 x 1 x 1.

    With :math:`x_1 = \mathrm{ReLU}(\mathrm{BN}(W_1 x))` of ``width`` channels, the spatial part
    :math:`s(v) = \mathrm{BN}(S * v)` and the temporal part :math:`t(v) = \mathrm{BN}(T * v)`, the middle is

    .. math::
        A:\ z &= \mathrm{ReLU}(t(\mathrm{ReLU}(s(x_1)))) \\
        B:\ z &= \mathrm{ReLU}(\mathrm{ReLU}(s(x_1)) + t(x_1)) \\
        C:\ z &= \mathrm{ReLU}(h + t(h)), \quad h = \mathrm{ReLU}(s(x_1)) \\
        2d:\ z &= \mathrm{ReLU}(s(x_1))

    and the output :math:`\mathrm{ReLU}(\mathrm{shortcut}(x) + \mathrm{BN}(W_3 z))`. In B and C the temporal part has no
    ReLU of its own, so that it can also lower the values of the spatial part. The shortcut is the identity, or a
    convolution 1 x 1 x 1 with batch norm where shapes differ. The stride is that of rows and columns, in the first
    convolution and in the shortcut; the number of frames is kept. Frames outside the clip count as zeros.

    The kind ``2d`` treats each frame by itself: a stage of such blocks equals a stage of a ResNet on single images.

    Source: arXiv 1711.10305, section 3.2 and figure 3; where the ReLUs stand, from the official definition of the
    network. Differs from it: weights are drawn by He's rule, not with standard deviation 0.001.

    Args:
        in_channels: number of channels of the input.
        width: number of channels within the block.
        kind: arrangement of the spatial and the temporal part: ``A`` one after the other, ``B`` side by side, ``C`` one
            after the other with a connection past the temporal one, or ``2d``, without a temporal part.
        spatial_stride: stride along rows and columns, at least 1.
        expansion: ratio of the output channels to ``width``, at least 1.
        zero_init_temporal: whether the weight of the temporal batch norm starts at 0 in B and C, so that a new block
            computes the same as one of kind ``2d``.

    Shape:
        x (B, in_channels, T, Y, X) -> (B, expansion * width, T, ceil(Y / spatial_stride), ceil(X / spatial_stride))

    Raises:
        ValueError: if a size is below 1 or ``kind`` unknown; in ``forward`` if ``x`` has another rank or number of
            channels.
        TypeError: in ``forward``, if ``x`` has an integer type.

    Example:
        >>> import torch
        >>> P3DBlock(16, 4, "B", spatial_stride=2)(torch.randn(2, 16, 5, 8, 8)).shape
        torch.Size([2, 16, 5, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        kind: Kind = "A",
        spatial_stride: int = 1,
        expansion: int = 4,
        zero_init_temporal: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "width": width, "spatial_stride": spatial_stride, "expansion": expansion}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        if kind not in get_args(Kind):
            raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(get_args(Kind))}")
        self.in_channels, self.out_channels = in_channels, expansion * width
        self.kind: Kind = kind
        self.zero_init_temporal = zero_init_temporal
        stride = (1, spatial_stride, spatial_stride)
        # names as in torchvision's ResNet, so that weights of a network on images fit
        self.conv1 = nn.Conv3d(in_channels, width, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, (1, 3, 3), padding=(0, 1, 1), bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, self.out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(self.out_channels)
        self.downsample: nn.Module | None = None
        if spatial_stride > 1 or in_channels != self.out_channels:
            self.downsample = nn.Sequential(
                nn.Conv3d(in_channels, self.out_channels, 1, stride, bias=False), nn.BatchNorm3d(self.out_channels)
            )
        if kind != "2d":
            self.temporal = nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0), bias=False)
            self.temporal_norm = nn.BatchNorm3d(width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor, and the statistics of the batch norms."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm3d):
                module.reset_parameters()
        if self.zero_init_temporal and self.kind in ("B", "C"):
            nn.init.zeros_(self.temporal_norm.weight)

    def _spatial(self, v: Tensor) -> Tensor:
        return self.bn2(self.conv2(v)).relu_()

    def _temporal(self, v: Tensor) -> Tensor:
        return self.temporal_norm(self.temporal(v))

    def middle(self, x: Tensor) -> Tensor:
        """Return the combination of the spatial and the temporal part that the kind describes.

        Args:
            x: output of the first convolution with batch norm and ReLU, (B, width, T, Y, X).

        Returns:
            The middle z, of the same shape.
        """
        h = self._spatial(x)
        if self.kind == "2d":
            return h
        if self.kind == "A":
            return self._temporal(h).relu_()
        return (self._temporal(x if self.kind == "B" else h) + h).relu_()

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the block.

        Args:
            x: clips (B, in_channels, T, Y, X).
        """
        if x.dim() != 5 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"clips have shape {tuple(x.shape)}, where (B, {self.in_channels}, T, Y, X) is needed; frames of one "
                "clip are an axis of their own after the channels"
            )
        if not x.is_floating_point():
            raise TypeError(f"clips are {x.dtype}; give real numbers, such as x.float() / 255")
        shortcut = x if self.downsample is None else self.downsample(x)
        z = self.middle(self.bn1(self.conv1(x)).relu_())
        return self.bn3(self.conv3(z)).add_(shortcut).relu_()

    def extra_repr(self) -> str:
        """Return the kind, for ``repr``: blocks of all kinds but ``2d`` have the same layers."""
        return f"kind={self.kind}"
