"""Plug-and-play iterations against problems whose solution is known, and the classical denoisers."""

import math
import sys

import pytest
import torch
from torch import nn

from graphseq.analysis import (
    TotalVariationDenoiser,
    WaveletDenoiser,
    plug_and_play_admm,
    plug_and_play_descent,
)
from graphseq.core import OptionalDependencyError
from graphseq.models import LearnedProximal
from graphseq.nn import Blur, CompressedSensing, Inpainting, InputConvexNetwork, gaussian_kernel

WEIGHT, RHO = 0.05, 0.3


def soft(threshold):
    return lambda x: x.sign() * (x.abs() - threshold).clamp(min=0)


@pytest.fixture(scope="module")
def lasso():
    """A sparse problem of 20 dimensions and its solution by ISTA, written out."""
    operator = CompressedSensing(12, (1, 4, 5), seed=1).double()
    truth = torch.zeros(2, 1, 4, 5, dtype=torch.float64)
    truth[0, 0, 1, 2], truth[0, 0, 3, 0], truth[1, 0, 2, 4] = 1.0, -2.0, 1.5
    v = operator(truth)
    matrix = operator.matrix
    step = 1 / torch.linalg.matrix_norm(matrix, 2) ** 2
    x = torch.zeros(2, 20, dtype=torch.float64)
    for _ in range(3000):
        x = soft(step * WEIGHT)(x - step * (x @ matrix.T - v) @ matrix)
    return operator, v, x.view(2, 1, 4, 5)


@pytest.mark.parametrize("order", ["image first", "dual first"])
def test_admm_solves_the_lasso(lasso, order):
    """Acceptance 6."""
    operator, v, solution = lasso
    found = plug_and_play_admm(v, operator, soft(WEIGHT / RHO), RHO, num_iterations=150, order=order, tolerance=1e-10)
    torch.testing.assert_close(found.images, solution, atol=1e-4, rtol=0)
    assert found.settled
    assert found.changes.shape == (150,)
    assert not plug_and_play_admm(v, operator, soft(WEIGHT / RHO), RHO, num_iterations=1, order=order).settled


def test_descent_solves_the_lasso(lasso):
    operator, v, solution = lasso
    step = 1 / float(operator.squared_norm(solution))
    for given in (None, 0.9 * step):
        threshold = soft((given or step) * WEIGHT)
        found = plug_and_play_descent(v, operator, threshold, given, num_iterations=800)
        torch.testing.assert_close(found.images, solution, atol=1e-4, rtol=0)


def test_a_quadratic_prior_has_the_solution_of_a_linear_system():
    """prox of c/2 |x|^2: x = (A^T A + rho c)^-1 A^T v, also by a learned network whose potential is quadratic."""

    class Half(nn.Module):
        def forward(self, y):
            return y.flatten(1).square().sum(1) / 4  # f(y) = y / 2: c = 1

    operator = Blur(gaussian_kernel(3, 0.8)).double()
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    v = operator(x)
    columns = torch.stack([operator(unit.view(1, 1, 4, 4)).flatten() for unit in torch.eye(16).double()], 1)
    expected = torch.linalg.solve(columns.T @ columns + 0.2 * torch.eye(16).double(), columns.T @ v.flatten())
    found = plug_and_play_admm(v, operator, LearnedProximal(Half()), 0.2, num_iterations=200)
    torch.testing.assert_close(found.images.flatten(), expected, atol=1e-6, rtol=0)


def test_networks_are_evaluated_and_put_back():
    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.seen = nn.Dropout(), []

        def forward(self, x):
            self.seen.append(self.inner.training)
            return x

    network = Watched()
    network.inner.eval()
    network.train(True)
    network.inner.training = False
    v = torch.rand(1, 1, 2, 2)
    plug_and_play_descent(v, Inpainting([[1, 0], [1, 1]]), network, num_iterations=2)
    assert network.seen == [False, False]
    assert (network.training, network.inner.training) == (True, False)


def test_values_beyond_the_training_are_refused():
    network = LearnedProximal(InputConvexNetwork(4), alpha=0.1)
    network(torch.rand(8, 1, 2, 2))
    operator = Inpainting([[1, 0], [1, 1]])
    for restore in (plug_and_play_admm, plug_and_play_descent):
        with pytest.raises(ValueError, match="noisy values of the training"):
            restore(torch.full((1, 1, 2, 2), 255.0), operator, network, num_iterations=2)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"measurement": torch.tensor([[[[math.nan, 0.0], [0.0, 0.0]]]])}, ValueError, "NaN"),
        ({"measurement": torch.ones(1, 1, 2, 2, dtype=torch.int64)}, TypeError, "int64"),
        ({"measurement": torch.ones(1, 1, 2, 2, dtype=torch.complex64)}, TypeError, "complex64"),
        ({"measurement": torch.ones(1, 1, 2, 3)}, ValueError, r"\(1, 1, 2, 3\)"),
        ({"denoiser": lambda x: x[:, :, :1]}, ValueError, r"\(1, 1, 1, 2\)"),
        ({"rho": 0.0}, ValueError, "rho is 0"),
        ({"num_iterations": 0}, ValueError, "num_iterations is 0"),
        ({"order": "123"}, ValueError, "order is '123'"),
        ({"tolerance": math.nan}, ValueError, "tolerance is nan"),
    ],
)
def test_bad_input(change, error, words):
    usual = {"measurement": torch.ones(1, 1, 2, 2), "operator": Inpainting([[1, 0], [1, 1]]), "denoiser": lambda x: x}
    given = {**usual, **change}
    with pytest.raises(error, match=words):
        plug_and_play_admm(**given)
    if set(given) == set(usual):
        with pytest.raises(error, match=words):
            plug_and_play_descent(**given)


@pytest.mark.parametrize("kind", [TotalVariationDenoiser, WaveletDenoiser])
def test_classical_denoisers(kind):
    pytest.importorskip("skimage", reason="total variation and wavelets need scikit-image")
    pytest.importorskip("pywt", reason="wavelets need PyWavelets")
    clean = torch.zeros(3, 1, 16, 16)
    clean[:, :, 4:12, 4:12] = 1.0
    noisy = clean + 0.2 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    found = kind(0.2)(noisy)
    assert found.dtype == noisy.dtype
    assert (found - clean).square().mean() < 0.6 * (noisy - clean).square().mean()
    torch.testing.assert_close(kind(0.2)(noisy[1:2]), found[1:2])  # images do not see each other
    with pytest.raises(ValueError, match="is 0"):
        kind(0.0)
    with pytest.raises(ValueError, match=r"\(16, 16\)"):
        kind(0.2)(noisy[0, 0])


@pytest.mark.parametrize("kind", [TotalVariationDenoiser, WaveletDenoiser])
def test_a_missing_package_is_named(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.restoration", None)
    with pytest.raises(OptionalDependencyError, match=r"scikit-image.*graphseq\[restoration\]"):
        kind()


def test_what_is_no_operator_denoiser_or_measurement():
    v, known = torch.ones(1, 1, 2, 2), Inpainting([[1, 1], [1, 1]])
    with pytest.raises(TypeError, match="without adjoint"):
        plug_and_play_admm(v, nn.Identity(), nn.Identity())
    with pytest.raises(TypeError, match="denoiser is a NoneType"):
        plug_and_play_descent(v, known, None)
    with pytest.raises(ValueError, match="is empty"):
        plug_and_play_descent(v[:0], known, nn.Identity())
