import math

import pytest
import torch

from graphseq.ops import gaussian_blur


def pixel_by_pixel(images, size, sigma):
    """Sum of a two-dimensional kernel over reflected pixels."""
    half = size // 2
    kernel = [
        [math.exp(-(y**2 + x**2) / (2 * sigma**2)) for x in range(-half, half + 1)] for y in range(-half, half + 1)
    ]
    total = sum(map(sum, kernel))
    height, width = images.shape[2:]

    def reflected(at, length):
        at = abs(at)
        return at if at < length else 2 * (length - 1) - at

    out = torch.zeros_like(images)
    for y in range(height):
        for x in range(width):
            for down in range(-half, half + 1):
                for right in range(-half, half + 1):
                    there = images[:, :, reflected(y + down, height), reflected(x + right, width)]
                    out[:, :, y, x] += kernel[down + half][right + half] / total * there
    return out


def test_equals_a_sum_over_pixels():
    images = torch.rand(
        2, 3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=False
    )
    torch.testing.assert_close(gaussian_blur(images, 5, 1.3), pixel_by_pixel(images, 5, 1.3))
    ones = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(gaussian_blur(ones, 7, 2.0), ones)
    assert torch.equal(gaussian_blur(images, 1, 1.0), images)
    seen = images.clone().requires_grad_()
    gaussian_blur(seen, 3, 1.0).square().sum().backward()
    other = images.clone().requires_grad_()
    pixel_by_pixel(other, 3, 1.0).square().sum().backward()
    torch.testing.assert_close(seen.grad, other.grad)


@pytest.mark.parametrize(
    ("size", "sigma", "shape", "message"),
    [(4, 1.0, (1, 1, 8, 8), "kernel_size is 4"), (3, 0.0, (1, 1, 8, 8), "sigma is 0.0"),
     (9, 1.0, (1, 1, 4, 8), "more than 4 rows"), (3, 1.0, (8, 8), r"\(8, 8\)")],
)  # fmt: skip
def test_bad_arguments(size, sigma, shape, message):
    with pytest.raises(ValueError, match=message):
        gaussian_blur(torch.ones(shape), size, sigma)


def test_integers_are_refused():
    with pytest.raises(TypeError, match="int64.*float"):
        gaussian_blur(torch.ones(1, 1, 8, 8, dtype=torch.int64), 3, 1.0)
