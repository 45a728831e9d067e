"""Noise on the images that a network is trained on: masks that a policy draws, random masks, additive noise."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Beta
from torch.nn import functional

from graphseq.core.spec import Recorded
from graphseq.ops.images.blur import gaussian_blur

__all__ = ["AdditiveNoise", "BetaMaskPolicy", "PerturbedImages", "RandomMask"]

_EDGE = 1e-6  # draws stay away from 0 and 1, where a density may be infinite
_LARGEST_LOGIT = 5.0  # parameters of the distribution lie between exp(-5) and exp(5)


def _bounded(logits: Tensor) -> Tensor:
    """Keep logits between -5 and 5 smoothly: a gradient always leads back."""
    return _LARGEST_LOGIT * torch.tanh(logits / _LARGEST_LOGIT)


class PerturbedImages(NamedTuple):
    """Images with noise, and the log-density of what was drawn.

    Args:
        images: images that the network sees (B, C, Y, X).
        log_prob: logarithm of the density of all that was drawn for an image (B,); 0 where nothing of it is learned.

    Example:
        >>> PerturbedImages(torch.ones(2, 1, 4, 4), torch.zeros(2)).log_prob
        tensor([0., 0.])
    """

    images: Tensor
    log_prob: Tensor


def _spread(cells: Tensor, images: Tensor, kernel_size: int, sigma: float) -> Tensor:
    """Return masks of the size of the images: cells are repeated over their pixels, then blurred (B, 1, Y, X)."""
    height, width = images.shape[2:]
    if cells.size(-1) > min(height, width) or kernel_size // 2 >= min(height, width):
        raise ValueError(
            f"images of {height} x {width} are too small for masks of {cells.size(-1)} x {cells.size(-1)} cells and a "
            f"blur of {kernel_size} pixels; give a smaller grid and blur_kernel_size"
        )
    mask = functional.interpolate(cells.unsqueeze(1), size=(height, width), mode="nearest")
    return gaussian_blur(mask, kernel_size, sigma).to(images)


def _check_mask(grid: int, blur_kernel_size: int, blur_sigma: float) -> None:
    if grid < 1:
        raise ValueError(f"grid is {grid}; it must be at least 1")
    if blur_kernel_size < 1 or blur_kernel_size % 2 == 0 or not blur_sigma > 0:
        raise ValueError(
            f"blur_kernel_size is {blur_kernel_size} and blur_sigma {blur_sigma}; give an odd number of at least 1 "
            "and a number above 0"
        )


def _check_images(x: Tensor, channels: int | None = None) -> None:
    if x.dim() != 4 or (channels is not None and x.size(1) != channels):
        raise ValueError(
            f"images have shape {tuple(x.shape)}, where (B, {'C' if channels is None else channels}, Y, X) is needed; "
            "set in_channels to the channels of the images, or add a missing axis with unsqueeze"
        )
    if not x.is_floating_point():
        raise TypeError(f"images are {x.dtype}; give real numbers, after ToFloat or Normalize")


def _head(in_features: int, hidden_features: int, out_features: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for before in (in_features, hidden_features):
        # batch norm has the bias
        parts += [nn.Linear(before, hidden_features, bias=False), nn.BatchNorm1d(hidden_features), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(hidden_features, out_features))


class BetaMaskPolicy(Recorded, nn.Module):
    r"""Policy that draws a multiplicative mask for each image, cell by cell, from beta distributions.

    From features of an image two heads give the logits :math:`a(x), b(x) \in \mathbb{R}^{g^2}`. They are mixed with
    base logits that all images share and that follow the mean over batches in training:

    .. math::
        a &= \mu\, \bar a + (1 - \mu)\, a(x), \qquad m_i \sim \mathrm{Beta}(e^{a_i}, e^{b_i}), \qquad
        x' = x \odot \mathrm{blur}(\mathrm{up}(m)) \\
        \bar a &\leftarrow \epsilon\, \bar a + (1 - \epsilon)\, \tfrac{1}{B} \textstyle\sum_b a(x_b)

    and b alike. ``log_prob`` is :math:`\log \pi(m | x) = \sum_i \log p(m_i)`; no gradient passes through the draw. In
    evaluation mode nothing is drawn: images are multiplied by the mean of the base distribution, and ``log_prob`` is 0.

    Base logits are buffers, in checkpoints. Draws come from torch's global generator.

    Source: arXiv 2406.14568 and its released code. Differs from it: the encoder is small, or handed in (released: a
    ResNet-10); evaluation takes the mean of a mask in place of a draw; grid and blur suit small images (released: 64
    cells and a blur of 13 pixels and a deviation of 6 for images of 224); draws lie in [1e-6, 1 - 1e-6], and
    logits z are bounded as :math:`5 \tanh(z / 5)`.

    Args:
        in_channels: number of channels of the images.
        grid: number of cells g along each side of a mask, at least 1.
        encoder: module from images to features (B, encoder_features); None for two convolutions of stride 2, pooled to
            2 x 2.
        encoder_features: number of features that ``encoder`` returns; no effect without one.
        hidden_features: width of the hidden layers of the heads, at least 1.
        mix: weight of the base logits, in [0, 1).
        decay: factor :math:`\epsilon` of the base logits, in [0, 1].
        blur_kernel_size: size of the blur in pixels, odd.
        blur_sigma: standard deviation of the blur in pixels, above 0.

    Shape:
        x (B, in_channels, Y, X) -> images of the same shape, log_prob (B,)

    Raises:
        ValueError: if an argument is outside its range; in ``forward`` if images have another shape or are smaller than
            grid or blur, if there is a single one in training, or if ``encoder`` returns another number of features.
        TypeError: in ``forward``, if images have an integer type.

    Example:
        >>> policy = BetaMaskPolicy(grid=4)
        >>> found = policy(torch.ones(3, 1, 8, 8))
        >>> found.images.shape, found.log_prob.shape, bool((found.images < 1).all())
        (torch.Size([3, 1, 8, 8]), torch.Size([3]), True)
    """

    base: Tensor

    def __init__(
        self,
        in_channels: int = 1,
        grid: int = 8,
        *,
        encoder: nn.Module | None = None,
        encoder_features: int = 128,
        hidden_features: int = 128,
        mix: float = 0.9,
        decay: float = 0.99,
        blur_kernel_size: int = 5,
        blur_sigma: float = 2.0,
    ) -> None:
        super().__init__()
        _check_mask(grid, blur_kernel_size, blur_sigma)
        sizes = {
            "in_channels": in_channels, "encoder_features": encoder_features, "hidden_features": hidden_features
        }  # fmt: skip
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        if not 0 <= mix < 1:
            raise ValueError(f"mix is {mix}; it must be in [0, 1), for with 1 images have no effect")
        if not 0 <= decay <= 1:
            raise ValueError(f"decay is {decay}; it must be in [0, 1]")
        self.in_channels, self.grid, self.mix, self.decay = in_channels, grid, mix, decay
        self.blur_kernel_size, self.blur_sigma = blur_kernel_size, blur_sigma
        self.encoder = encoder or nn.Sequential(
            nn.Conv2d(in_channels, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        )  # fmt: skip
        self.encoder_features = 128 if encoder is None else encoder_features
        self.heads = nn.ModuleList(_head(self.encoder_features, hidden_features, grid**2) for _ in range(2))
        self.register_buffer("base", torch.rand(2, grid**2))  # logits of a and b, as released in [0, 1)

    def reset_parameters(self) -> None:
        """Reinitialise all layers and draw the base logits anew."""
        for module in self.modules():
            reset = getattr(module, "reset_parameters", None)
            if module is not self and reset is not None:
                reset()
        self.base.uniform_()

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits that the heads give for each image, before they are mixed with the base (2, B, g^2).

        Args:
            x: images (B, in_channels, Y, X).
        """
        _check_images(x, self.in_channels)
        features = self.encoder(x)  # (B, D)
        if features.shape != (len(x), self.encoder_features):
            raise ValueError(
                f"the encoder gives features {tuple(features.shape)} for {len(x)} images, where "
                f"{(len(x), self.encoder_features)} are needed; set encoder_features, or end the encoder with "
                "torch.nn.Flatten()"
            )
        if self.training and len(x) == 1:
            raise ValueError(
                "images are a batch of one, and the batch norms of the heads take mean and variance over a batch; "
                "leave out a last batch of one image (drop_last=True of the data module), or give another batch_size"
            )
        found = torch.stack([head(features) for head in self.heads])
        return found.to(torch.promote_types(found.dtype, torch.float32))  # densities need it

    def distribution(self, logits: Tensor) -> Beta:
        """Return the distributions of the cells after mixing.

        Args:
            logits: logits of a and b (2, B, g^2).
        """
        mixed = self.mix * self.base[:, None] + (1 - self.mix) * logits
        a, b = _bounded(mixed).exp()
        return Beta(a, b, validate_args=False)  # its checks would wait for the device

    @property
    def mean_mask(self) -> Tensor:
        """Mean of the base distribution in each cell (grid, grid), in (0, 1)."""
        a, b = _bounded(self.base).exp()
        return (a / (a + b)).view(self.grid, self.grid)

    def forward(self, x: Tensor) -> PerturbedImages:
        """Return masked images and the log-density of their masks.

        Args:
            x: images (B, in_channels, Y, X).
        """
        if not self.training:
            _check_images(x, self.in_channels)
            mask = _spread(self.mean_mask[None], x, self.blur_kernel_size, self.blur_sigma)
            return PerturbedImages(x * mask, x.new_zeros(len(x)))
        logits = self.logits(x)
        found = self.distribution(logits)
        cells = found.sample().clamp(_EDGE, 1 - _EDGE)  # (B, g^2)
        log_prob = found.log_prob(cells).sum(1)
        if len(x):  # an empty batch has no mean
            with torch.no_grad():
                self.base.lerp_(logits.mean(1).to(self.base), 1 - self.decay)
        mask = _spread(cells.view(-1, self.grid, self.grid), x, self.blur_kernel_size, self.blur_sigma)
        return PerturbedImages(x * mask, log_prob)

    def extra_repr(self) -> str:
        """Return the sizes of the mask and the mixing, for ``repr``."""
        return (
            f"in_channels={self.in_channels}, grid={self.grid}, mix={self.mix}, decay={self.decay}, "
            f"blur_kernel_size={self.blur_kernel_size}, blur_sigma={self.blur_sigma}"
        )


class RandomMask(Recorded, nn.Module):
    r"""Multiplicative masks with cells from one beta distribution: the control of :class:`BetaMaskPolicy`.

    .. math:: m_i \sim \mathrm{Beta}(\alpha, \beta), \qquad x' = x \odot \mathrm{blur}(\mathrm{up}(m))

    It has no parameters. In evaluation mode images are multiplied by the mean :math:`\alpha / (\alpha + \beta)`.

    Args:
        grid: number of cells along each side of a mask, at least 1.
        alpha: first parameter, above 0; with both 1 the distribution is uniform.
        beta: second parameter, above 0.
        blur_kernel_size: size of the blur in pixels, odd.
        blur_sigma: standard deviation of the blur in pixels, above 0.

    Shape:
        x (B, C, Y, X) -> images of the same shape, log_prob (B,), which is 0

    Raises:
        ValueError: if an argument is outside its range; in ``forward`` if images are not (B, C, Y, X), or smaller than
            grid or blur.
        TypeError: in ``forward``, if images have an integer type.

    Example:
        >>> RandomMask(grid=4).eval()(torch.ones(2, 3, 8, 8)).images[0, 0, 0, 0]
        tensor(0.5000)
    """

    def __init__(
        self,
        grid: int = 8,
        alpha: float = 1.0,
        beta: float = 1.0,
        *,
        blur_kernel_size: int = 5,
        blur_sigma: float = 2.0,
    ) -> None:
        super().__init__()
        _check_mask(grid, blur_kernel_size, blur_sigma)
        if not (alpha > 0 and beta > 0):
            raise ValueError(f"alpha is {alpha} and beta {beta}; both must be above 0")
        self.grid, self.alpha, self.beta = grid, alpha, beta
        self.blur_kernel_size, self.blur_sigma = blur_kernel_size, blur_sigma

    def forward(self, x: Tensor) -> PerturbedImages:
        """Return masked images.

        Args:
            x: images (B, C, Y, X).
        """
        _check_images(x)
        nothing = x.new_zeros(len(x))
        if not self.training:
            return PerturbedImages(x * (self.alpha / (self.alpha + self.beta)), nothing)
        shape = (len(x), self.grid, self.grid)
        wide = torch.promote_types(x.dtype, torch.float32)  # nothing can be drawn in half precision
        alpha, beta = (x.new_full(shape, each, dtype=wide) for each in (self.alpha, self.beta))
        found = Beta(alpha, beta, validate_args=False)
        return PerturbedImages(x * _spread(found.sample(), x, self.blur_kernel_size, self.blur_sigma), nothing)

    def extra_repr(self) -> str:
        """Return the arguments, for ``repr``."""
        return (
            f"grid={self.grid}, alpha={self.alpha}, beta={self.beta}, blur_kernel_size={self.blur_kernel_size}, "
            f"blur_sigma={self.blur_sigma}"
        )


class AdditiveNoise(Recorded, nn.Module):
    r"""Independent Gaussian noise on every pixel in training: a control of masks; with ``std=0`` plain images.

    .. math:: x' = x + \sigma\, \epsilon, \qquad \epsilon \sim N(0, 1)

    Args:
        std: standard deviation :math:`\sigma` in units of the images, at least 0.

    Shape:
        x (B, C, Y, X) -> images of the same shape, log_prob (B,), which is 0

    Raises:
        ValueError: if ``std`` is negative; in ``forward`` if images are not (B, C, Y, X).
        TypeError: in ``forward``, if images have an integer type.

    Example:
        >>> AdditiveNoise(0.0)(torch.ones(1, 1, 1, 2)).images
        tensor([[[[1., 1.]]]])
    """

    def __init__(self, std: float = 0.1) -> None:
        super().__init__()
        if not std >= 0:
            raise ValueError(f"std is {std}; it must be at least 0")
        self.std = std

    def forward(self, x: Tensor) -> PerturbedImages:
        """Return images with noise.

        Args:
            x: images (B, C, Y, X).
        """
        _check_images(x)
        noisy = x + self.std * torch.randn_like(x) if self.training and self.std else x
        return PerturbedImages(noisy, x.new_zeros(len(x)))

    def extra_repr(self) -> str:
        """Return the standard deviation, for ``repr``."""
        return f"std={self.std}"
