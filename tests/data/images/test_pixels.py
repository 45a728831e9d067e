import pytest
import torch

from graphseq.data import ImageDataModule, PixelSequenceDataModule


@pytest.mark.parametrize("seed", [None, 3])
def test_pixels_in_their_order(seed):
    images, labels = next(ImageDataModule("digits", batch_size=7).batches("test"))
    data = PixelSequenceDataModule("digits", permutation_seed=seed, batch_size=7)
    batch = next(data.batches("test"))
    order = data.pixel_order(64).tolist()
    assert (order == list(range(64))) == (seed is None)
    assert sorted(order) == list(range(64))
    for step, pixel in enumerate(order):
        assert torch.equal(batch.x[:, step, 0], images[:, 0, pixel // 8, pixel % 8])
    assert torch.equal(batch.y, labels)
    assert batch.lengths.tolist() == [64] * 7
    assert (data.num_features, data.num_outputs) == (1, 10)


def test_one_order_for_all_images():
    first, second = (PixelSequenceDataModule("digits", permutation_seed=seed) for seed in (1, 2))
    assert torch.equal(first.pixel_order(64), first.pixel_order(64))
    assert not torch.equal(first.pixel_order(64), second.pixel_order(64))
