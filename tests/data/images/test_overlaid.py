"""Photos with digits: what stands where, splits that share no digit, labels of either subject, and refusals."""

import pytest
import torch

from graphseq.core import DataError
from graphseq.data import DigitsOnPhotosDataModule, ImageDataModule
from graphseq.data.images.overlaid import _centred


@pytest.fixture(scope="module")
def data() -> DigitsOnPhotosDataModule:
    return DigitsOnPhotosDataModule("digits", "digits", num_train=300, num_test=50, batch_size=300, seed=4)


def test_photo_and_digit_are_images_of_their_sets_and_labels_are_theirs(data):
    own = ImageDataModule("digits", seed=4)
    images, labels = own.store.take(torch.arange(len(own.store)))
    of_image: dict[bytes, set[int]] = {}
    for image, label in zip(images, labels, strict=True):
        of_image.setdefault(image.numpy().tobytes(), set()).add(int(label))
    for name in ("train", "val", "test"):
        index = data.splits[name]
        x, _ = data.store.take(index)
        known = {images[i].numpy().tobytes() for i in own.splits[name].tolist()}
        for place, image in zip(index.tolist(), x, strict=True):
            for channel, subject in ((0, "photo"), (1, "digit")):
                found = image[channel : channel + 1].numpy().tobytes()
                assert found in known
                assert int(data.labels_of(subject)[place]) in of_image[found]


def test_labels_are_those_of_the_subject(data):
    _, labels = data.store.take(torch.arange(len(data.store)))
    assert torch.equal(labels, data.labels_of("digit"))
    photos = DigitsOnPhotosDataModule("digits", "digits", num_train=300, num_test=50, subject="photo", seed=4)
    _, labels = photos.store.take(torch.arange(len(photos.store)))
    assert torch.equal(labels, photos.labels_of("photo"))
    assert torch.equal(photos.labels_of("digit"), data.labels_of("digit"))
    assert not torch.equal(photos.labels_of("digit"), photos.labels_of("photo"))
    assert [len(data.splits[name]) for name in ("train", "test")] == [300, 50]
    assert (data.num_features, data.num_outputs) == (2, 10)


def test_smaller_digits_stand_in_the_middle():
    digits = torch.ones(2, 1, 4, 3, dtype=torch.uint8)
    placed = _centred(digits, torch.Size([8, 8]), "small", "large")
    assert placed.shape == (2, 1, 8, 8)
    assert bool(placed[:, :, 2:6, 2:5].eq(1).all())
    assert int(placed.sum()) == digits.numel()


def test_bad_input():
    with pytest.raises(ValueError, match="subject is 'number'"):
        DigitsOnPhotosDataModule("digits", "digits", subject="number")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="num_train is 0"):
        DigitsOnPhotosDataModule("digits", "digits", num_train=0)
    with pytest.raises(DataError, match="num_test is 9999; digits has"):
        DigitsOnPhotosDataModule("digits", "digits", num_test=9999).load()
    with pytest.raises(DataError, match="digits need one channel"):
        _centred(torch.ones(2, 3, 4, 4), torch.Size([8, 8]), "coloured", "photos")
    with pytest.raises(DataError, match="digits need one channel"):
        _centred(torch.ones(2, 1, 9, 4), torch.Size([8, 8]), "large", "photos")
