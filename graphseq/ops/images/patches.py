"""Patches of images: cut apart, put together again, and chosen at random."""

import torch
from torch import Generator, Tensor

__all__ = ["choose_patches", "patchify", "unpatchify"]


def patchify(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the patches of images, which do not overlap, row by row from the top left.

    Args:
        images: batch of images.
        size: rows and columns of a patch, which divide those of an image.

    Shape:
        images (B, C, Y, X) -> (B, Y / size[0] * X / size[1], C, *size)

    Raises:
        ValueError: if ``images`` has another rank, or the size does not divide it.

    Example:
        >>> patchify(torch.arange(16).view(1, 1, 4, 4), (2, 2))[0, :, 0].tolist()
        [[[0, 1], [4, 5]], [[2, 3], [6, 7]], [[8, 9], [12, 13]], [[10, 11], [14, 15]]]
    """
    if images.dim() != 4:
        raise ValueError(f"images have shape {tuple(images.shape)}; (B, C, Y, X) is needed")
    height, width = images.shape[2:]
    if min(size) < 1 or height % size[0] or width % size[1]:
        raise ValueError(
            f"patches of {size[0]} x {size[1]} do not divide images of {height} x {width}; give a divisor of both, or "
            "crop the images"
        )
    cut = images.unflatten(3, (-1, size[1])).unflatten(2, (-1, size[0]))  # (B, C, rows, size, columns, size)
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def unpatchify(patches: Tensor, columns: int) -> Tensor:
    """Return the images whose patches :func:`patchify` returned.

    Args:
        patches: patches row by row.
        columns: number of patches in a row.

    Shape:
        patches (B, N, C, P, Q) -> (B, C, N / columns * P, columns * Q)

    Raises:
        ValueError: if ``patches`` has another rank, or ``columns`` does not divide their number.

    Example:
        >>> images = torch.randn(2, 3, 8, 12)
        >>> torch.equal(unpatchify(patchify(images, (4, 4)), columns=3), images)
        True
    """
    if patches.dim() != 5 or columns < 1 or patches.shape[1] % columns:
        raise ValueError(
            f"patches have shape {tuple(patches.shape)}, columns is {columns}; (B, N, C, P, Q) with N a multiple of it "
            "is needed"
        )
    grid = patches.unflatten(1, (-1, columns))  # (B, rows, columns, C, P, Q)
    return grid.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def choose_patches(
    num_images: int, num_patches: int, num_chosen: int, device: torch.device | str, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw positions of patches of each image, all sets equally likely, and return them with the remaining positions.

    Args:
        num_images: number of images B.
        num_patches: number of patches of an image.
        num_chosen: number M of patches to draw of each image, at most ``num_patches``.
        device: device of the result.
        generator: random number generator of the device; None for torch's own.

    Returns:
        chosen positions int64 (B, M), and the others (B, num_patches - M), both in random order.

    Raises:
        ValueError: if ``num_chosen`` is out of range.

    Example:
        >>> chosen, others = choose_patches(5, 16, 4, "cpu")
        >>> chosen.shape, torch.equal(torch.cat([chosen, others], 1).sort().values, torch.arange(16).expand(5, 16))
        (torch.Size([5, 4]), True)
    """
    if not 0 <= num_chosen <= num_patches:
        raise ValueError(f"num_chosen is {num_chosen}; it must be in 0..{num_patches}, the number of patches")
    order = torch.rand(num_images, num_patches, device=device, generator=generator).argsort(1)
    return order[:, :num_chosen], order[:, num_chosen:]
