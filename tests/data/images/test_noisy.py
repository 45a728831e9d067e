"""Noisy images: the formula, noise that is fixed where it must be, and refusals."""

import pytest
import torch

from graphseq.data import ImageDataModule, NoisyImagesDataModule


def test_noise_has_the_level_and_the_target_is_clean():
    data = NoisyImagesDataModule("digits", noise=2.0, batch_size=2000)
    x, level, y = next(data.batches("train"))
    assert 0 <= float(level.min()) < 0.01 < 0.99 < float(level.max()) <= 1
    noise = (x.flatten(1) - y) / (2.0 * level)
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.std()) - 1) < 0.01
    assert data.num_outputs == data.input_size == 64
    assert data.num_features == 1


def test_training_is_drawn_anew_and_evaluation_is_not():
    data = NoisyImagesDataModule("digits", batch_size=50, seed=3)
    first, again = next(data.batches("val")), next(data.batches("val"))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    first, again = next(data.batches("train")), next(data.batches("train"))
    assert torch.equal(first[2], again[2])
    assert not torch.equal(first[1], again[1])
    assert not torch.equal(first[0], again[0])
    images = ImageDataModule("digits", seed=3)
    assert all(torch.equal(data.splits[name], images.splits[name]) for name in ("train", "val", "test"))


@pytest.mark.parametrize("noise", [0.0, float("nan"), float("inf")])
def test_bad_noise(noise):
    with pytest.raises(ValueError, match="noise is"):
        NoisyImagesDataModule(noise=noise)
