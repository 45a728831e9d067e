"""Measurements against loops, and their adjoints."""

import pytest
import torch

from graphseq.nn import Blur, CompressedSensing, Inpainting, LinearMeasurement, gaussian_kernel

KERNEL = [[0.1, 0.2, 0.3], [0.0, -0.4, 0.5], [0.6, 0.7, 0.8]]
MASK = [[1, 0, 1, 1], [0, 1, 1, 0], [1, 1, 1, 0]]


def images(seed=0, count=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, 3, 4, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(
    "operator",
    [Blur(KERNEL), Blur(gaussian_kernel(5, 1.0)), Inpainting(MASK), CompressedSensing(7, (2, 3, 4), seed=3)],
    ids=["kernel", "gaussian", "mask", "projections"],
)
def test_adjoint(operator):
    x = images()
    v = torch.randn_like(operator(x))
    torch.testing.assert_close((operator(x) * v).sum(), (x * operator.adjoint(v)).sum(), rtol=1e-12, atol=1e-12)
    assert operator.adjoint(v).shape == x.shape
    columns = torch.stack([operator(unit[None])[0].flatten() for unit in torch.eye(24).double().view(24, 2, 3, 4)])
    norm = float(torch.linalg.matrix_norm(columns, 2) ** 2)
    found = float(operator.squared_norm(x, 200))
    assert norm * 0.99 < found <= norm * (1 + 1e-9)


def test_blur_equals_loops():
    x, kernel = images(), torch.tensor(KERNEL)
    expected = torch.zeros_like(x)
    for i in range(3):
        for j in range(4):
            for k in range(3):
                for m in range(3):
                    row, column = i + k - 1, j + m - 1
                    if 0 <= row < 3 and 0 <= column < 4:
                        expected[:, :, i, j] += float(kernel[k, m]) * x[:, :, row, column]
    torch.testing.assert_close(Blur(KERNEL)(x), expected, rtol=1e-6, atol=1e-6)


def test_others_equal_their_formula():
    x = images()
    masked = Inpainting(MASK)(x)
    assert all(
        float(masked[b, c, i, j]) == (float(x[b, c, i, j]) if MASK[i][j] else 0.0)
        for b in range(2) for c in range(2) for i in range(3) for j in range(4)
    )  # fmt: skip
    sensing = CompressedSensing(400, (2, 3, 4), seed=3)
    assert sensing(x).shape == (2, 400)
    # projections keep lengths in the mean
    assert float(sensing(x).square().sum() / x.square().sum()) == pytest.approx(1, abs=0.2)
    assert torch.equal(sensing.matrix, CompressedSensing(400, (2, 3, 4), seed=3).matrix)
    assert not torch.equal(sensing.matrix, CompressedSensing(400, (2, 3, 4)).matrix)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Blur([[1.0, 2.0]]), r"\(1, 2\)"),
        (lambda: Blur([[1.0], [2.0, 3.0]]), "different lengths"),
        (lambda: Blur([[float("nan")]]), "finite"),
        (lambda: Inpainting([[0, 0.5]]), "0 and 1"),
        (lambda: Inpainting([[0, 0]]), "at least one 1"),
        (lambda: CompressedSensing(0, (1, 2, 2)), "num_measurements is 0"),
        (lambda: gaussian_kernel(4, 1.0), "size is 4"),
        (lambda: gaussian_kernel(3, 0.0), "sigma 0"),
        (lambda: Blur(KERNEL)(torch.ones(3, 4)), r"\(3, 4\)"),
        (lambda: Inpainting(MASK)(torch.ones(1, 1, 4, 4)), r"\(B, C, 3, 4\)"),
        (lambda: CompressedSensing(2, (1, 2, 2))(torch.ones(1, 1, 2, 3)), r"\(B, 1, 2, 2\)"),
        (lambda: CompressedSensing(2, (1, 2, 2)).adjoint(torch.ones(1, 3)), r"\(B, 2\)"),
    ],
)
def test_wrong_arguments(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_a_subclass_defines_both_maps():
    with pytest.raises(TypeError, match="adjoint"):
        LinearMeasurement()(torch.ones(1))


def test_numbers_that_are_not_measured():
    images = torch.ones(1, 1, 2, 2, dtype=torch.int64)
    for operator in (Blur([[0.5]]), Inpainting([[1, 0], [1, 1]]), CompressedSensing(3, (1, 2, 2))):
        with pytest.raises(TypeError, match="torch.int64"):
            operator(images)
    for build in (lambda: Blur([0.5, 0.5]), lambda: Inpainting([1, 0]), lambda: Blur([[1.0], [1.0, 2.0]])):
        with pytest.raises(ValueError, match="give a matrix"):
            build()
    with pytest.raises(ValueError, match="not all of them 0"):
        Blur([[0.0]])
