"""Noise of one level: where it is new, where it stays, and the best estimate of Laplace numbers."""

import pytest
import torch

from graphseq.data import DenoisingImagesDataModule, ImageDataModule, LaplaceDenoisingDataModule, ToFloat


def test_noise_of_images():
    data = DenoisingImagesDataModule("digits", noise=0.2, batch_size=200, eval_batch_size=500, seed=3)
    (first, clean), (again, _) = (next(data.batches("val")) for _ in range(2))
    assert torch.equal(first, again)
    assert clean.shape == first.shape == (len(data.splits["val"]), 1, 8, 8)
    assert float((first - clean).std()) == pytest.approx(0.2, rel=0.03)
    images = ImageDataModule("digits", seed=3)
    expected = images.store.take(images.splits["val"])[0]
    torch.testing.assert_close(clean, ToFloat()(expected))
    batches = [next(data.batches("train")) for _ in range(2)]
    assert not torch.equal(batches[0][0] - batches[0][1], batches[1][0] - batches[1][1])
    assert (data.num_features, data.num_outputs, data.input_size) == (1, 1, 64)


def test_laplace_numbers():
    sizes = dict.fromkeys(("num_train", "num_val", "batch_size", "eval_batch_size"), 4000)
    data = LaplaceDenoisingDataModule(2.0, 0.5, dim=2, **sizes)
    for stage in ("train", "val"):
        noisy, clean = next(data.batches(stage))
        assert noisy.shape == clean.shape == (4000, 2)
        assert float(clean.abs().mean()) == pytest.approx(2.0, rel=0.05)
        assert float(clean.square().mean()) == pytest.approx(8.0, rel=0.12)
        assert float((noisy - clean).std()) == pytest.approx(0.5, rel=0.05)
    assert torch.equal(next(data.batches("val"))[0], next(data.batches("val"))[0])
    assert not torch.equal(next(data.batches("train"))[1], next(data.batches("train"))[1])
    assert bool(data._laplace(torch.tensor([0.0, 1.0])).isfinite().all())


def test_mode_is_that_of_the_posterior():
    data = LaplaceDenoisingDataModule(0.7, 0.9)
    y = torch.linspace(-4, 4, 33, dtype=torch.float64)
    grid = torch.linspace(-5, 5, 10_001, dtype=torch.float64)
    energy = (y[:, None] - grid).square() / (2 * 0.9**2) + grid.abs() / 0.7  # minus the logarithm of the posterior
    torch.testing.assert_close(data.mode(y), grid[energy.argmin(1)], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: LaplaceDenoisingDataModule(scale=0.0), "scale is 0"),
        (lambda: LaplaceDenoisingDataModule(noise=float("inf")), "noise is inf"),
        (lambda: LaplaceDenoisingDataModule(dim=0), "dim is 0"),
        (lambda: LaplaceDenoisingDataModule(num_val=-1), "num_val is -1"),
        (lambda: DenoisingImagesDataModule(noise=0.0), "noise is 0"),
    ],
)
def test_wrong_arguments(build, words):
    with pytest.raises(ValueError, match=words):
        build()
