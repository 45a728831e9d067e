"""Convolutional networks for small images."""

import copy
import itertools

from torch import Tensor, nn

from graphseq.core import Recorded

__all__ = ["ConvNet"]


class ConvNet(Recorded, nn.Module):
    r"""Small convolutional network for images of about 8 x 8 to 32 x 32.

    Blocks of convolution 3 x 3, batch norm, ReLU and max pooling 2 x 2, each at half the resolution and, after the
    first, twice the width of the block before; then the mean over all positions and a linear head. No
    parameter depends on the size of the images, so one network accepts images of any size of at least 2^L pixels.

    .. math::
        h_i = \mathrm{pool}(\mathrm{ReLU}(\mathrm{BN}(W_i * h_{i-1}))), \qquad
        y = W\, \mathrm{dropout}(\mathrm{mean}_{y,x}\, h_L) + b

    Args:
        in_channels: number of channels of the images.
        out_channels: number of outputs of one image.
        hidden_channels: number of channels of the first block; block i has :math:`2^{i-1}` times as many.
        num_layers: number of blocks L, at least 1; the images need :math:`2^L` pixels on each side, so 3 for 8 x 8.
        dropout: probability in [0, 1) of setting a feature before the head to zero in training.
        pooling: modules between batch norm and ReLU, in this order, that halve rows and columns; each block gets copies
            of its own. None for the maximum over 2 x 2.

    Shape:
        x (B, in_channels, Y, X) real -> (B, out_channels)

    Raises:
        ValueError: if a size or ``dropout`` is outside its range; in ``forward`` if ``x`` has another rank or number
            of channels, or is too small for the number of poolings.
        TypeError: in ``forward``, if ``x`` has an integer type.

    Example:
        >>> import torch
        >>> model = ConvNet(in_channels=1, out_channels=10)
        >>> images = torch.randn(4, 1, 28, 28)
        >>> model(images).shape, model.encode(images).shape
        (torch.Size([4, 10]), torch.Size([4, 128]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 32,
        num_layers: int = 3,
        dropout: float = 0.0,
        pooling: list[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        sizes = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "hidden_channels": hidden_channels,
            "num_layers": num_layers,
        }
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; give a whole number of at least 1")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout is {dropout}; give a probability in [0, 1)")
        if pooling is not None and not pooling:
            raise ValueError("pooling is empty; give at least one module, or None for the maximum")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_layers = num_layers
        widths = [in_channels] + [hidden_channels * 2**layer for layer in range(num_layers)]
        self.encoded_channels = widths[-1]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False),  # batch norm has the bias
                    nn.BatchNorm2d(after),
                    # the maximum before the ReLU: the same numbers, and a quarter of them left for it
                    *([nn.MaxPool2d(2)] if pooling is None else copy.deepcopy(pooling)),
                    nn.ReLU(inplace=pooling is None),  # the gradient of another module may need its output
                )
                for before, after in itertools.pairwise(widths)
            )
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], out_channels)

    def reset_parameters(self) -> None:
        """Reinitialise all weights as in the constructor, and the statistics of the batch norms."""
        for module in self.blocks.modules():
            reset = getattr(module, "reset_parameters", None)  # of any pooling that was given
            if callable(reset):
                reset()
        self.head.reset_parameters()

    def encode(self, x: Tensor) -> Tensor:
        """Return the features of each image, averaged over its positions: the input of the head.

        Args:
            x: images (B, in_channels, Y, X).

        Returns:
            Features (B, encoded_channels).
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"images have shape {tuple(x.shape)}, where (B, {self.in_channels}, Y, X) is needed; "
                "set in_channels to the channels of the images, or add a missing axis with unsqueeze"
            )
        if not x.is_floating_point():
            raise TypeError(f"images are {x.dtype}; give real numbers, after ToFloat or Normalize")
        smallest = 2**self.num_layers
        if min(x.shape[2:]) < smallest:
            raise ValueError(
                f"images of {x.shape[2]} x {x.shape[3]} are too small for {self.num_layers} poolings, which need "
                f"{smallest} x {smallest}; give larger images or a smaller num_layers"
            )
        return self.blocks(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, logits for a classification.

        Args:
            x: images (B, in_channels, Y, X).
        """
        return self.head(self.dropout(self.encode(x)))
