"""Selfie: masked patches of an image are assigned to their positions from the surrounding patches."""

import torch
from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.nn import AttentionPooling
from graphseq.ops import patchify

__all__ = ["SelfieNetwork"]


class SelfieNetwork(Recorded, nn.Module):
    r"""Scores which of the masked patches of an image belongs at which of the masked positions.

    .. math:: h_i = P(x_i), \qquad u = A(\{h_c + e_c : c \in \text{context}\}), \qquad
        s_{tj} = \frac{(u + e_t)^\top h_j}{\sqrt{D}}

    for masked positions t and masked patches j of the same image; P is the patch network, with the mean over its
    feature map, A the attention pooling, and e a learned vector for each position.

    ::

        image -> patches -> P -+- context + e -> A -> u
                               |                      + e_t -> query --+
                               +- masked ------------------------------+--> scores

    Every patch goes through P by itself, so that no pixel of a masked patch reaches the queries, if P has no batch norm
    or is in evaluation mode. Batch norm in training takes mean and variance over all patches of the batch, masked ones
    too; ``ResNetEncoder(norm="group")`` does not.

    Source: arXiv 1906.02940. Differs from it: positions are added to the context as well (``context_positions``),
    without which A cannot know where a patch lies; scores are divided by the root of D, so that the loss starts near
    chance level.

    Args:
        network: patch network with ``encode`` and ``encoded_channels``, such as :class:`ResNetEncoder`.
        in_shape: numbers of channels, rows and columns of an image; data modules of images link it.
        patch_grid: number of patches along each side, a divisor of rows and columns.
        pooling: module from (B, N, D) to (B, D); None for :class:`graphseq.nn.AttentionPooling` with its defaults.
        context_positions: whether e is added to the context.
        factorized_positions: whether the vector of a position is that of its row plus that of its column, as for large
            grids.

    Shape:
        x (B, C, Y, X) real -> features of whole images (B, D); see :meth:`scores`

    Raises:
        TypeError: if ``network`` has no ``encode``.
        ValueError: if an argument is out of range, the grid does not divide the image, or ``pooling`` is of another
            width than the patch network; in a call if images have another shape.

    Example:
        >>> from graphseq.models import ResNetEncoder
        >>> from graphseq.ops import choose_patches
        >>> model = SelfieNetwork(ResNetEncoder(in_channels=3), in_shape=(3, 32, 32))
        >>> model.scores(torch.randn(2, 3, 32, 32), *choose_patches(2, model.num_patches, 4, "cpu")).shape
        torch.Size([2, 4, 4])
    """

    def __init__(
        self,
        network: nn.Module,
        in_shape: tuple[int, int, int],
        patch_grid: int = 4,
        pooling: nn.Module | None = None,
        context_positions: bool = True,
        factorized_positions: bool = False,
    ) -> None:
        super().__init__()
        width = getattr(network, "encoded_channels", None)
        if not isinstance(width, int) or not callable(getattr(network, "encode", None)):
            raise TypeError(
                f"network is a {type(network).__name__} without encode or encoded_channels; give a patch network such "
                "as graphseq.models.ResNetEncoder or ConvNet"
            )
        if len(in_shape) != 3 or min(in_shape) < 1:
            raise ValueError(f"in_shape is {tuple(in_shape)}; it must be (channels, rows, columns)")
        if patch_grid < 1 or in_shape[1] % patch_grid or in_shape[2] % patch_grid:
            raise ValueError(
                f"patch_grid is {patch_grid}, which does not divide images of {in_shape[1]} x {in_shape[2]}; give a "
                "divisor of both sides, such as 4 for 28 and 32"
            )
        pooled = width if pooling is None else getattr(pooling, "dim", width)
        if isinstance(pooled, int) and pooled != width:
            raise ValueError(
                f"pooling has dim={pooled}, the vectors of the {type(network).__name__} have {width} features; give a "
                f"pooling of dim={width}"
            )
        self.in_shape = tuple(in_shape)
        self.patch_grid = patch_grid
        self.num_patches = patch_grid**2
        self.context_positions = context_positions
        self.network = network
        self.pooling = AttentionPooling(width) if pooling is None else pooling
        shapes = [(patch_grid, 1, width), (1, patch_grid, width)] if factorized_positions else []
        self.position_parts = nn.ParameterList(
            nn.Parameter(torch.empty(shape)) for shape in shapes or [(patch_grid, patch_grid, width)]
        )
        self.reset_positions()

    def reset_parameters(self) -> None:
        """Reinitialise the patch network and the attention pooling, and draw the vectors of the positions."""
        for part in (self.network, self.pooling):
            reset = getattr(part, "reset_parameters", None)  # parts of any library
            if callable(reset):
                reset()
        self.reset_positions()

    def reset_positions(self) -> None:
        """Draw the vectors of the positions."""
        for part in self.position_parts:
            nn.init.normal_(part, std=0.02)

    @property
    def positions(self) -> Tensor:
        """Vector of each position, row by row (num_patches, D)."""
        parts = list(self.position_parts)
        return (parts[0] if len(parts) == 1 else parts[0] + parts[1]).flatten(0, 1)

    def embed_patches(self, x: Tensor) -> Tensor:
        """Return the vectors of all patches (B, num_patches, D), each from its own pixels.

        Args:
            x: images (B, C, Y, X).
        """
        if x.dim() != 4 or tuple(x.shape[1:]) != self.in_shape:
            raise ValueError(f"images have shape {tuple(x.shape)}; (B, {', '.join(map(str, self.in_shape))}) is needed")
        _, height, width = self.in_shape
        patches = patchify(x, (height // self.patch_grid, width // self.patch_grid))
        h: Tensor = self.network.encode(patches.flatten(0, 1))  # type: ignore[operator]  # checked by the constructor
        return h.unflatten(0, (len(x), -1))

    def summary(self, h: Tensor, context: Tensor) -> Tensor:
        """Return the summary u of the context (B, D).

        Args:
            h: vectors of the context patches (B, N, D).
            context: their positions, int64 (B, N).
        """
        pooled: Tensor = self.pooling(h + self.positions[context] if self.context_positions else h)
        return pooled

    def scores(self, x: Tensor, masked: Tensor, context: Tensor) -> Tensor:
        """Return the scores of the masked patches (last axis) at the masked positions (middle axis), (B, M, M).

        The scores of the correct patches are on the diagonal.

        Args:
            x: images (B, C, Y, X).
            masked: positions of masked patches, int64 (B, M).
            context: positions of the other patches, int64 (B, N).
        """
        h = self.embed_patches(x)
        candidates, known = (h.gather(1, at[:, :, None].expand(-1, -1, h.shape[2])) for at in (masked, context))
        queries = self.summary(known, context)[:, None] + self.positions[masked]  # (B, M, D)
        return queries @ candidates.transpose(1, 2) / h.shape[2] ** 0.5

    def encode(self, x: Tensor) -> Tensor:
        """Return the features of whole images, computed by the patch network (B, D).

        Args:
            x: images (B, C, Y, X).
        """
        features: Tensor = self.network.encode(x)  # type: ignore[operator]  # checked by the constructor
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of whole images, as :meth:`encode` does.

        Args:
            x: images (B, C, Y, X).
        """
        return self.encode(x)
