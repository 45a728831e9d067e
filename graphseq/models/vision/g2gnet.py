"""G2GNet: image patches and group-to-group sparse layers; and the network around any such layers."""

from typing import Literal

from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn import GroupToGroupLinear, PatchEncoder

__all__ = ["G2GNet", "PatchMLP"]


class PatchMLP(Recorded, nn.Module):
    r"""Patch encoder, given linear layers with ReLU after each, and a dense head.

    .. math:: h_0 = \mathrm{patches}(x), \qquad h_i = \mathrm{ReLU}(\mathrm{layer}_i(h_{i-1})), \qquad y = W h_L + b

    It is the network of :class:`G2GNet` with other layers: dense ones, or those of a random graph.

    Args:
        in_shape: numbers of channels, rows and columns of an image.
        out_features: number of outputs of one image.
        layers: linear layers with ``in_features`` and ``out_features``, at least one; the first takes the features of
            all patches, ``patch_grid`` squared times ``channels``. Layers of other libraries from
            :func:`graphseq.core.make`, so that checkpoints hold them.
        patch_grid: number of patches along each side of an image.
        channels: number of features of a patch.
        order: order of the features of patches, see :class:`graphseq.nn.PatchEncoder`.

    Shape:
        x (B, C, Y, X) real -> (B, out_features)

    Raises:
        ValueError: if ``layers`` is empty or their sizes do not fit, or the encoder refuses its arguments.

    Example:
        >>> import torch
        >>> from graphseq.core import make
        >>> from graphseq.nn import ERLinear
        >>> model = PatchMLP((1, 28, 28), 10, [ERLinear(512, 64), make(nn.Linear, 64, 32)])
        >>> model(torch.randn(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        out_features: int,
        layers: list[nn.Module],
        patch_grid: int = 4,
        channels: int = 32,
        order: Literal["patch", "channel"] = "patch",
    ) -> None:
        super().__init__()
        if out_features < 1:
            raise ValueError(f"out_features is {out_features}; it must be at least 1")
        if not layers:
            raise ValueError("layers is empty; give at least one linear layer")
        self.encoder = PatchEncoder(in_shape, patch_grid, channels, order)
        width = self.encoder.out_features
        for place, layer in enumerate(layers):
            if getattr(layer, "in_features", None) != width:  # layers of any library
                raise ValueError(
                    f"layers[{place}] takes {getattr(layer, 'in_features', 'an unknown number of')} features; "
                    f"it is given {width}"
                )
            width = int(layer.out_features)  # type: ignore[arg-type]  # a number in every linear layer
        self.hidden = nn.ModuleList(nn.Sequential(layer, nn.ReLU()) for layer in layers)
        self.head = nn.Linear(width, out_features)

    def reset_parameters(self) -> None:
        """Reinitialise all weights; connections stay."""
        for module in self.modules():
            reset = getattr(module, "reset_parameters", None)  # layers of any library
            if module is not self and callable(reset):
                reset()

    def encode(self, x: Tensor) -> Tensor:
        """Return the last hidden layer.

        Args:
            x: images (B, C, Y, X).
        """
        x = self.encoder(x)
        for block in self.hidden:
            x = block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, logits for a classification.

        Args:
            x: images (B, C, Y, X).
        """
        return self.head(self.encode(x))


class G2GNet(PatchMLP):
    r"""Image patches, sparse layers between groups of units, and a dense head.

    Each layer connects units of the same group fully and units of different groups with probability p'. With
    ``mixer`` the layers take turns between contiguous groups and groups of every G-th unit, so that what one layer
    keeps apart the next one mixes.

    Source: arXiv 2508.14140. Differs from the paper: by default all units of a group read the same units of another
    group (``granularity="column"``), of the same number, for fast execution; the paper draws each weight (``edge``).

    Args:
        in_shape: numbers of channels, rows and columns of an image.
        out_features: number of outputs of one image.
        groups: number of groups G in each layer, a divisor of the width and of the number of patch features.
        width: number of units of each sparse layer.
        depth: number of sparse layers, at least 1.
        p_intra: density within a group, in [0, 1].
        p_inter: density p' between groups, in [0, 1].
        grouping: ``index`` (contiguous groups), ``mixer`` (contiguous in odd layers, interleaved in even ones) or
            ``random`` (drawn for the two sides of each layer, a control).
        granularity: unit of connectivity that is drawn as a whole: ``edge``, ``column`` or ``block``, see
            :class:`graphseq.nn.GroupToGroupLinear`.
        backend: format of the weights, see :class:`graphseq.nn.GroupToGroupLinear`.
        patch_grid: number of patches along each side of an image.
        channels: number of features of a patch.
        order: order of the features of patches, see :class:`graphseq.nn.PatchEncoder`.
        seed: seed of the connections; None to draw them from the global generator.

    Shape:
        x (B, C, Y, X) real -> (B, out_features)

    Raises:
        ValueError: if an argument is out of range, or ``groups`` does not divide the sizes.

    Example:
        >>> import torch
        >>> model = G2GNet((1, 28, 28), 10)
        >>> model(torch.randn(2, 1, 28, 28)).shape, [round(block[0].density, 2) for block in model.hidden]
        (torch.Size([2, 10]), [0.26, 0.25, 0.25])
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int] = (1, 28, 28),
        out_features: int = 10,
        groups: int = 8,
        width: int = 1024,
        depth: int = 3,
        p_intra: float = 1.0,
        p_inter: float = 0.15,
        grouping: Literal["index", "mixer", "random"] = "mixer",
        granularity: Literal["edge", "column", "block"] = "column",
        backend: Literal["auto", "packed", "masked", "blockdiag+csr"] = "auto",
        patch_grid: int = 4,
        channels: int = 32,
        order: Literal["patch", "channel"] = "patch",
        seed: int | None = None,
    ) -> None:
        if depth < 1:
            raise ValueError(f"depth is {depth}; it must be at least 1")
        if grouping not in ("index", "mixer", "random"):
            raise ValueError(f"grouping is {grouping!r}; it must be 'index', 'mixer' or 'random'")
        widths = [patch_grid**2 * channels] + [width] * depth
        layers: list[nn.Module] = []
        for place in range(depth):
            mixed: Literal["index", "interleaved"] = "interleaved" if place % 2 else "index"
            layers.append(
                GroupToGroupLinear(
                    widths[place],
                    widths[place + 1],
                    groups,
                    p_intra,
                    p_inter,
                    mixed if grouping == "mixer" else grouping,
                    granularity,
                    backend,
                    seed=None if seed is None else seed + place,
                )
            )
        super().__init__(in_shape, out_features, layers, patch_grid, channels, order)
