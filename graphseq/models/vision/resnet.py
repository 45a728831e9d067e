"""Residual networks in two parts: first stages, which can be pre-trained, and a last stage with the classifier."""

from typing import Literal, get_args

from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn import ResidualStage
from graphseq.nn.conv.residual import norm_of_channels

__all__ = ["ResNetClassifier", "ResNetEncoder"]

Stem = Literal["small", "strided", "large"]


class ResNetEncoder(Recorded, nn.Module):
    r"""Stem and first stages of a residual network.

    Each stage but the first halves the resolution and doubles the width. With ``channels=64, num_blocks=(3, 4, 6),
    kind="bottleneck", stem="large"`` and the defaults of :class:`ResNetClassifier` but 3 bottleneck blocks it is
    ResNet-50.

    Source: arXiv 1512.03385. Differs from it: see :class:`graphseq.nn.ResidualBlock`.

    Args:
        in_channels: number of channels of the images.
        channels: width of the first stage.
        num_blocks: number of blocks of each stage.
        kind: ``basic`` or ``bottleneck`` blocks.
        stem: ``small`` for a convolution 3 x 3; ``strided`` for one with stride 2; ``large`` for a convolution 7 x 7
            with stride 2 and a maximum over 3 x 3 with stride 2, as for large images.
        norm: ``batch``, or ``group`` for group norm, under which images or patches do not depend on the rest of the
            batch.

    Shape:
        x (B, in_channels, Y, X) real -> (B, out_channels, Y', X')

    Raises:
        ValueError: if an argument is out of range; in ``forward`` if ``x`` has another rank or number of channels.
        TypeError: in ``forward``, if ``x`` has an integer type.

    Example:
        >>> import torch
        >>> encoder = ResNetEncoder(in_channels=3)
        >>> x = torch.randn(2, 3, 32, 32)
        >>> encoder(x).shape, encoder.encode(x).shape
        (torch.Size([2, 64, 8, 8]), torch.Size([2, 64]))
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 16,
        num_blocks: tuple[int, ...] = (1, 1, 1),
        kind: Literal["basic", "bottleneck"] = "basic",
        stem: Stem = "small",
        norm: Literal["batch", "group"] = "batch",
    ) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels is {in_channels}; it must be at least 1")
        if not num_blocks:
            raise ValueError("num_blocks is empty; give the number of blocks of at least one stage")
        if stem not in get_args(Stem):
            raise ValueError(f"stem is {stem!r}; it must be one of {', '.join(get_args(Stem))}")
        self.in_channels = in_channels
        kernel, stride = (7, 2) if stem == "large" else (3, 2 if stem == "strided" else 1)
        first = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False)
        pool = [nn.MaxPool2d(3, 2, padding=1)] if stem == "large" else []
        self.stem = nn.Sequential(first, norm_of_channels(norm, channels), nn.ReLU(), *pool)
        stages: list[ResidualStage] = []
        width = channels
        for place, count in enumerate(num_blocks):
            stages.append(ResidualStage(width, channels * 2**place, count, 2 if place else 1, kind, norm))
            width = stages[-1].out_channels
        self.stages = nn.Sequential(*stages)
        self.out_channels = self.encoded_channels = width
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the convolutions by He's rule and reset the norms."""
        nn.init.kaiming_normal_(self.stem[0].weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
        self.stem[1].reset_parameters()  # type: ignore[operator]  # a norm
        for stage in self.stages:
            stage.reset_parameters()  # type: ignore[operator]  # a residual stage

    def encode(self, x: Tensor) -> Tensor:
        """Return the mean of the feature map over its positions (B, encoded_channels).

        Args:
            x: images (B, in_channels, Y, X).
        """
        return self(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature map of the last stage.

        Args:
            x: images (B, in_channels, Y, X).
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"images have shape {tuple(x.shape)}, where (B, {self.in_channels}, Y, X) is needed")
        if not x.is_floating_point():
            raise TypeError(f"images are {x.dtype}; give real numbers, after ToFloat or Normalize")
        return self.stages(self.stem(x))


class ResNetClassifier(Recorded, nn.Module):
    r"""Residual network on given first stages: a last stage of twice the width, the mean over positions, a linear head.

    .. math:: y = W\, \mathrm{dropout}(\mathrm{mean}_{y,x}\, g(f(x))) + b

    With ``Pretrained(path, part="model.network", freeze=False)`` as first stages f it is the fine-tuning of a
    pre-trained network, with :class:`ResNetEncoder` its training from scratch.

    Source: arXiv 1512.03385; in two parts as in arXiv 1906.02940.

    Args:
        network: first stages with ``out_channels`` and a feature map as output, such as :class:`ResNetEncoder`.
        out_channels: number of outputs of one image.
        num_blocks: number of blocks of the last stage, at least 1.
        kind: ``basic`` or ``bottleneck`` blocks.
        norm: ``batch`` or ``group``.
        dropout: probability in [0, 1) of setting a feature before the head to zero in training.

    Shape:
        x (B, C, Y, X) real -> (B, out_channels)

    Raises:
        TypeError: if ``network`` has no ``out_channels``.
        ValueError: if an argument is out of range.

    Example:
        >>> import torch
        >>> ResNetClassifier(ResNetEncoder(in_channels=3), out_channels=10)(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        network: nn.Module,
        out_channels: int,
        num_blocks: int = 1,
        kind: Literal["basic", "bottleneck"] = "basic",
        norm: Literal["batch", "group"] = "batch",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        width = getattr(network, "out_channels", None)  # of first stages of any library
        if not isinstance(width, int):
            raise TypeError(
                f"network is a {type(network).__name__} without out_channels; give first stages such as "
                "graphseq.models.ResNetEncoder"
            )
        if out_channels < 1:
            raise ValueError(f"out_channels is {out_channels}; it must be at least 1")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout is {dropout}; give a probability in [0, 1)")
        self.network = network
        channels = 2 * width // (4 if kind == "bottleneck" else 1)
        self.stage = ResidualStage(width, channels, num_blocks, 2, kind, norm)
        self.encoded_channels = self.stage.out_channels
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.encoded_channels, out_channels)

    def reset_parameters(self) -> None:
        """Reinitialise the last stage and the head; the first stages keep their weights."""
        self.stage.reset_parameters()
        self.head.reset_parameters()

    def encode(self, x: Tensor) -> Tensor:
        """Return the mean of the last feature map over its positions, the input of the head (B, encoded_channels).

        Args:
            x: images (B, C, Y, X).
        """
        return self.stage(self.network(x)).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, logits for a classification.

        Args:
            x: images (B, C, Y, X).
        """
        return self.head(self.dropout(self.encode(x)))
