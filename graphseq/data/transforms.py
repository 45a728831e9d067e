"""Transforms of whole image batches on the device, without a loop over samples and without synchronisation."""

import functools
import inspect
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from graphseq.core import Recorded

__all__ = ["ChannelDrop", "Compose", "GaussianNoise", "Normalize", "RandomCrop", "RandomHorizontalFlip", "ToFloat"]

# Moving and masking pixels is done on whole numbers of the same width: any dtype takes the quick integer kernels,
# every bit is kept, and a nan beside the kept pixels cannot spread as it would in a product with zero.
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _check_images(images: Tensor) -> None:
    if images.dim() != 4:
        raise ValueError(
            f"images have shape {tuple(images.shape)}, where a batch (B, C, Y, X) is needed; "
            "add the missing axis with unsqueeze"
        )


def _in_bits(images: Tensor) -> bool:
    return images.dtype.itemsize in _BITS and not images.requires_grad


@functools.lru_cache(maxsize=16)
def _inside(height: int, width: int, padding: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Masks of a shift, 0 or all bits: a row a shift in y, or in x, a column a pixel of the image (2 P + 1, Y * X)."""
    # a table made in inference mode could not be used outside it
    with torch.inference_mode(False):
        shifts = torch.arange(-padding, padding + 1, device=device)[:, None]
        rows, columns = (shifts + torch.arange(size, device=device) for size in (height, width))
        keep_rows, keep_columns = ((at >= 0) & (at < size) for at, size in ((rows, height), (columns, width)))
        on, off = (~torch.zeros((), dtype=dtype, device=device), torch.zeros((), dtype=dtype, device=device))
        return (
            torch.where(keep_rows.repeat_interleave(width, 1), on, off),
            torch.where(keep_columns.repeat(1, height), on, off),
        )


class RandomCrop(Recorded, nn.Module):
    r"""Pad every image on all sides and crop it to its size at random, independently for each image.

    This is a shift of the image by whole pixels, uniform in :math:`\{-P, \dots, P\}` for each axis, the same for all
    channels.

    Source: arXiv 1512.03385, section 4.2 (padding 4, for CIFAR-10). Differs from the paper: none.

    Args:
        padding: width P of the padding in pixels, at least 0.
        padding_mode: padding by zeros, or by reflection of the image without its edge.

    Shape:
        images (B, C, Y, X) of any dtype -> the same; ``forward`` draws from ``generator``, None for the global one
        of the device.

    Raises:
        ValueError: if ``padding`` is negative or ``padding_mode`` unknown; in ``forward`` if the images are not
            (B, C, Y, X) or too small for reflection (P must be below Y and X).

    Example:
        >>> images = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4)
        >>> RandomCrop(padding=1)(images, torch.Generator().manual_seed(2))[0, 0]
        tensor([[ 0,  0,  0,  0],
                [ 0,  0,  1,  2],
                [ 0,  4,  5,  6],
                [ 0,  8,  9, 10]], dtype=torch.uint8)
    """

    def __init__(self, padding: int = 4, padding_mode: Literal["zeros", "reflect"] = "zeros") -> None:
        super().__init__()
        if padding < 0:
            raise ValueError(f"padding is {padding}; give a number of pixels, at least 0")
        if padding_mode not in ("zeros", "reflect"):
            raise ValueError(f"padding_mode is {padding_mode!r}; give 'zeros' or 'reflect'")
        self.padding = padding
        self.padding_mode = padding_mode

    def forward(self, images: Tensor, generator: Generator | None = None) -> Tensor:
        """Crop a batch.

        Args:
            images: batch of images (B, C, Y, X).
            generator: source of the offsets, on the device of the batch.
        """
        _check_images(images)
        num_images, _, height, width = images.shape
        if self.padding_mode == "reflect" and self.padding >= min(height, width):
            raise ValueError(
                f"images of {height} x {width} cannot be mirrored by {self.padding} pixels; give a padding below "
                f"{min(height, width)}, or padding_mode='zeros'"
            )
        offsets = torch.randint(
            0, 2 * self.padding + 1, (2, num_images), device=images.device, generator=generator
        )  # of the window in the padded image, y and x
        if not images.numel() or not self.padding:
            return images
        if self.padding_mode == "zeros" and _in_bits(images):
            return self._shift(images, offsets)
        return self._gather(images, offsets)

    def _shift(self, images: Tensor, offsets: Tensor) -> Tensor:
        # A shifted image is one stretch of the flat batch, begun some pixels earlier or later: one plain copy an
        # image in place of one a row. What the stretch takes from neighbouring rows and images is masked out.
        num_images, channels, height, width = images.shape
        bits = images.contiguous().view(_BITS[images.dtype.itemsize])
        length, slack = channels * height * width, self.padding * (width + 1)
        flat = nn.functional.pad(bits.view(-1), (slack, slack))
        down, right = offsets.unbind()
        starts = torch.arange(0, num_images * length, length, device=images.device)
        starts.add_(down, alpha=width).add_(right)
        shifted = flat.as_strided((flat.numel() - length + 1, length), (1, 1)).index_select(0, starts)
        shifted = shifted.view(num_images, channels, height * width)
        keep_rows, keep_columns = _inside(height, width, self.padding, bits.dtype, images.device)
        shifted &= keep_rows.index_select(0, down).unsqueeze(1)
        shifted &= keep_columns.index_select(0, right).unsqueeze(1)
        return shifted.view(images.dtype).view(images.shape)

    def _gather(self, images: Tensor, offsets: Tensor) -> Tensor:
        num_images, channels, height, width = images.shape
        positions, inside = [], []
        for offset, size in zip(offsets.unbind(), (height, width), strict=True):
            wanted = offset[:, None] + torch.arange(-self.padding, size - self.padding, device=images.device)
            mirrored = (size - 1) - ((size - 1) - wanted.abs()).abs()
            positions.append(mirrored if self.padding_mode == "reflect" else wanted.clamp(0, size - 1))
            inside.append((wanted >= 0) & (wanted < size))
        index = (positions[0] * width)[:, :, None] + positions[1][:, None, :]  # (B, Y, X)
        index = index.view(num_images, 1, height * width).expand(-1, channels, -1)
        cropped = images.flatten(2).gather(2, index).view(images.shape)
        if self.padding_mode == "reflect":
            return cropped
        kept = (inside[0][:, :, None] & inside[1][:, None, :]).unsqueeze(1)
        return torch.where(kept, cropped, cropped.new_zeros(()))

    def extra_repr(self) -> str:
        """Return the arguments, for ``repr``."""
        return f"padding={self.padding}, padding_mode={self.padding_mode!r}"


class RandomHorizontalFlip(Recorded, nn.Module):
    """Flip each image left to right with a given probability, independently for each image.

    Args:
        p: probability of a flip, in [0, 1].

    Shape:
        images (B, C, Y, X) of any dtype -> the same; ``forward`` draws from ``generator``, None for the global one
        of the device.

    Raises:
        ValueError: if ``p`` is outside [0, 1]; in ``forward`` if the images are not (B, C, Y, X).

    Example:
        >>> RandomHorizontalFlip(p=1.0)(torch.tensor([[[[1, 2, 3]]]]))
        tensor([[[[3, 2, 1]]]])
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"p is {p}; give a probability in [0, 1]")
        self.p = p

    def forward(self, images: Tensor, generator: Generator | None = None) -> Tensor:
        """Flip some images of a batch.

        Args:
            images: batch of images (B, C, Y, X).
            generator: source of the decisions, on the device of the batch.
        """
        _check_images(images)
        chosen = torch.rand(len(images), device=images.device, generator=generator) < self.p
        chosen = chosen.view(-1, 1, 1, 1)
        if not _in_bits(images):
            return torch.where(chosen, images.flip(-1), images)
        bits = images.contiguous().view(_BITS[images.dtype.itemsize])
        # both axes at once is a reversal of one long stretch; undoing the rows then is quicker than turning each
        mirrored = bits.flip((-2, -1)).flip(-2)
        # a ^ ((a ^ b) & mask) takes b where the mask is all ones (-1): a selection in vector instructions
        mirrored ^= bits
        mirrored &= chosen.to(bits.dtype).neg_()
        mirrored ^= bits
        return mirrored.view(images.dtype)

    def extra_repr(self) -> str:
        """Return the arguments, for ``repr``."""
        return f"p={self.p}"


class ToFloat(Recorded, nn.Module):
    """Convert uint8 images to float32 in [0, 1]; floating-point images are unchanged.

    Shape:
        images (B, C, Y, X), uint8 or real -> the same, real

    Raises:
        TypeError: in ``forward``, if the images have another integer type, whose range is unknown.

    Example:
        >>> ToFloat()(torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8))
        tensor([[[[0.0000, 0.2000, 1.0000]]]])
    """

    def forward(self, images: Tensor) -> Tensor:
        """Convert a batch.

        Args:
            images: batch of images (B, C, Y, X).
        """
        _check_images(images)
        return images if _scale(images) == 1.0 else images.float().div_(255.0)


def _scale(images: Tensor) -> float:
    """Return the factor that maps the values to [0, 1]."""
    if images.is_floating_point():
        return 1.0
    if images.dtype != torch.uint8:
        raise TypeError(f"images are {images.dtype}; give uint8 (0 to 255), or real numbers in [0, 1]")
    return 1.0 / 255.0


class Normalize(Recorded, nn.Module):
    r"""Subtract a mean and divide by a standard deviation, one of each for each channel.

    .. math:: y_c = (x_c - \mu_c) / \sigma_c

    Images of uint8 are first converted to float32 in [0, 1], in the same pass.

    Args:
        mean: mean of each channel, for values in [0, 1]; a single number applies to all channels.
        std: standard deviation of each channel, for values in [0, 1], above 0; a single number applies to all channels.

    Shape:
        images (B, C, Y, X), uint8 or real -> the same, float32 for uint8, else the dtype given

    Raises:
        ValueError: if the lists are empty, differ in length, or a number of ``std`` is not above 0; in ``forward``
            if the images are not (B, C, Y, X) or have another number of channels.
        TypeError: in ``forward``, if the images have an integer type other than uint8.

    Example:
        >>> Normalize([0.2], [0.4])(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
        tensor([[[[-0.5000,  2.0000]]]])
    """

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean:
            raise ValueError(f"mean has {len(mean)} and std {len(std)} entries; give one of each for each channel")
        if not all(deviation > 0 for deviation in std):
            raise ValueError(f"std is {list(std)}; every entry must be above 0")
        self.mean = list(mean)
        self.std = list(std)
        self._constants: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Normalise a batch.

        Args:
            images: batch of images (B, C, Y, X).
        """
        _check_images(images)
        if len(self.mean) not in (1, images.shape[1]):
            raise ValueError(
                f"images have {images.shape[1]} channels, mean and std {len(self.mean)} entries; give one a channel"
            )
        key = (images.dtype, images.device)
        if key not in self._constants:
            self._constants[key] = self._make_constants(images)
        factor, shift = self._constants[key]
        values = images.to(factor.dtype)
        # a fresh copy may be written; two passes in place are quicker than addcmul, which is slow with broadcasting
        return (values * factor if values is images else values.mul_(factor)).add_(shift)

    def _make_constants(self, images: Tensor) -> tuple[Tensor, Tensor]:
        # kept for each device, for a copy to it would stop every step; an evaluation may come first, and constants
        # made in inference mode could not be used in training
        scale, dtype = _scale(images), images.dtype if images.is_floating_point() else torch.float32
        factors = [scale / deviation for deviation in self.std]
        shifts = [-mean / deviation for mean, deviation in zip(self.mean, self.std, strict=True)]
        with torch.inference_mode(False):
            factor, shift = (
                torch.tensor(numbers, dtype=dtype, device=images.device).view(1, -1, 1, 1)
                for numbers in (factors, shifts)
            )
        return factor, shift

    def extra_repr(self) -> str:
        """Return the arguments, for ``repr``."""
        return f"mean={self.mean}, std={self.std}"


class GaussianNoise(Recorded, nn.Module):
    """Add independent normal noise to every pixel.

    Args:
        std: standard deviation of the noise, in units of the images, at least 0.

    Shape:
        images (B, C, Y, X), real -> the same; ``forward`` draws from ``generator``, None for the global one of the
        device.

    Raises:
        ValueError: if ``std`` is negative; in ``forward`` if the images are not (B, C, Y, X).
        TypeError: in ``forward``, if the images are not real numbers.

    Example:
        >>> noisy = GaussianNoise(std=0.5)(torch.zeros(8, 1, 64, 64), torch.Generator().manual_seed(0))
        >>> 0.49 < noisy.std() < 0.51
        tensor(True)
    """

    def __init__(self, std: float) -> None:
        super().__init__()
        if not std >= 0:
            raise ValueError(f"std is {std}; give a number of at least 0")
        self.std = std

    def forward(self, images: Tensor, generator: Generator | None = None) -> Tensor:
        """Add noise to a batch.

        Args:
            images: batch of images (B, C, Y, X).
            generator: source of the noise, on the device of the batch.
        """
        _check_images(images)
        if not images.is_floating_point():
            raise TypeError(f"images are {images.dtype}, noise needs real numbers; put ToFloat or Normalize before it")
        noise = torch.randn(images.shape, dtype=images.dtype, device=images.device, generator=generator)
        return torch.add(images, noise, alpha=self.std)

    def extra_repr(self) -> str:
        """Return the arguments, for ``repr``."""
        return f"std={self.std}"


class ChannelDrop(Recorded, nn.Module):
    """Set a channel to zero with probability p, independently for each image.

    Args:
        channel: number of the channel, from 0, or from the last, -1, downwards.
        p: probability of dropping it, in [0, 1].

    Shape:
        images (B, C, Y, X) of any dtype -> the same; ``forward`` draws from ``generator``, None for the global one
        of the device.

    Raises:
        ValueError: if ``p`` is outside [0, 1]; in ``forward`` if the images are not (B, C, Y, X) or have no such
            channel.

    Example:
        >>> ChannelDrop(channel=-1, p=1.0)(torch.ones(1, 2, 1, 2)).flatten().tolist()
        [1.0, 1.0, 0.0, 0.0]
    """

    def __init__(self, channel: int = -1, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p is {p}; give a probability in [0, 1]")
        self.channel, self.p = channel, p

    def forward(self, images: Tensor, generator: Generator | None = None) -> Tensor:
        """Drop the channel of some images of a batch.

        Args:
            images: batch of images (B, C, Y, X).
            generator: source of the choice, on the device of the batch.
        """
        _check_images(images)
        if not -images.size(1) <= self.channel < images.size(1):
            raise ValueError(f"channel is {self.channel}; images of shape {tuple(images.shape)} have no such channel")
        drop = torch.rand(len(images), 1, 1, device=images.device, generator=generator) < self.p
        dropped = images.clone()
        dropped[:, self.channel].masked_fill_(drop, 0)
        return dropped

    def extra_repr(self) -> str:
        """Return the arguments, for ``repr``."""
        return f"channel={self.channel}, p={self.p}"


class Compose(Recorded, nn.Module):
    """Apply transforms one after the other.

    Shifts and flips are fastest on uint8: put ``RandomCrop`` and ``RandomHorizontalFlip`` before ``Normalize``.

    Args:
        transforms: modules that take and return the images; those whose ``forward`` has a parameter ``generator``
            get the generator. An empty list changes nothing.

    Shape:
        images (B, C, Y, X) -> output of the last transform

    Raises:
        TypeError: if an entry is not a module.

    Example:
        >>> augment = Compose([RandomCrop(padding=2), RandomHorizontalFlip(), Normalize([0.29], [0.35])])
        >>> augment(torch.zeros(16, 1, 28, 28, dtype=torch.uint8)).dtype
        torch.float32
    """

    def __init__(self, transforms: list[nn.Module]) -> None:
        super().__init__()
        for position, transform in enumerate(transforms):
            if not isinstance(transform, nn.Module):
                raise TypeError(
                    f"transforms[{position}] is {transform!r}; give modules, such as RandomCrop() with its brackets"
                )
        self.transforms = nn.ModuleList(transforms)
        self._draws = ["generator" in inspect.signature(transform.forward).parameters for transform in transforms]

    def forward(self, images: Tensor, generator: Generator | None = None) -> Tensor:
        """Transform a batch.

        Args:
            images: batch of images (B, C, Y, X).
            generator: source of all random numbers, on the device of the batch.
        """
        for transform, draws in zip(self.transforms, self._draws, strict=True):
            images = transform(images, generator) if draws else transform(images)
        return images
