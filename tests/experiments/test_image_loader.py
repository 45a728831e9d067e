"""The experiment on loading images, on tiny data: what it compares, what it skips, what it concludes."""

import math

import pytest
import torch
from matplotlib.figure import Figure

import experiments.loading.image_loader as module
from experiments.loading.image_loader import ImageLoaderSpeed
from graphseq.bench import load_experiment
from graphseq.bench.runner import run_experiment
from graphseq.data import TensorStore
from tests.reference import image_transforms as reference


@pytest.fixture
def record(tmp_path, own_cache, no_network, monkeypatch):
    monkeypatch.delenv("GRAPHSEQ_MIRROR", raising=False)
    return run_experiment(ImageLoaderSpeed(num_images=600), scale="quick", state_dir=tmp_path / "state")


def test_quick_scale_runs_without_data_and_says_so(record):
    skipped = [row for row in record["rows"] if "skipped" in row]
    measured = [row for row in record["rows"] if "skipped" not in row]
    assert [(row["data"], row["augmentation"], row["workers"]) for row in skipped] == [
        ("FashionMNIST", augmentation, workers) for augmentation in ("none", "crop_flip") for workers in (0, 2)
    ]
    assert all("Fashion-MNIST is not here: FashionMNIST needs train-images" in row["skipped"] for row in skipped)
    assert [(row["data"], row["augmentation"], row["workers"]) for row in measured] == [
        ("random", augmentation, workers) for augmentation in ("none", "crop_flip") for workers in (0, 2)
    ]
    for row in measured:
        assert (row["images"], row["rounds"], row["outputs"]) == (600, 3, "equal")
        assert row["peer"] == f"torch.utils.data.DataLoader {torch.__version__}"
        assert 0 < row["ratio_low"] <= row["ratio"] <= row["ratio_high"] < math.inf
        assert min(row["ours_ms"], row["peer_ms"], row["copy_ms"], row["copies"]) > 0
        assert min(row["ours_peak_mb"], row["peer_peak_mb"]) >= 0
    assert len(record["table"]) == 4
    assert record["environment"]["threads"] == 1
    assert "Rule: the claim is" in record["rule"]
    axes = Figure().subplots()
    ImageLoaderSpeed().draw(record, axes)
    assert len(axes.patches) == 4


def test_real_images_are_used_where_they_are(mirror, no_network):
    experiment = ImageLoaderSpeed(num_images=300)
    row = experiment.run({"data": "FashionMNIST", "augmentation": "crop_flip", "workers": 0}, "quick")
    assert row["images"] == 300
    images, labels = module._data("FashionMNIST", 300)
    assert images.shape == (300, 1, 28, 28)
    assert labels[:5].tolist() == [9, 0, 0, 3, 0]  # the published order


def rows(*ratios):
    return [
        {**cell, "ratio": ratio, "ratio_low": ratio / 2, "ratio_high": 2 * ratio, "copies": 3.0}
        | dict.fromkeys(("ours_ms", "peer_ms", "ours_peak_mb", "peer_peak_mb"), 1.0)
        for cell, ratio in zip(ImageLoaderSpeed().cells("full", 1), ratios, strict=False)
    ]


@pytest.mark.parametrize(("ratios", "holds"), [((25, 20, 31), True), ((25, 19.9, 31), False)])
def test_every_row_counts(ratios, holds):
    conclusion = ImageLoaderSpeed().conclude(rows(*ratios))
    (check,) = conclusion.checks
    assert (check.value, check.bound, check.holds) == (ratios[1], 20.0, holds)
    assert "FashionMNIST, augmentation none, 2 workers" in check.claim
    assert conclusion.verdict is None
    assert [line["ratio"] for line in conclusion.table] == list(ratios)


def test_samples_of_the_peer_equal_the_reference():
    images = torch.randint(0, 256, (20, 2, 7, 6), dtype=torch.uint8)
    for number, image in enumerate(images):
        top, left, mirror = number % 9, (5 * number) % 9, number % 2 == 1
        expected = reference.crop(image.tolist(), top, left, 4, "zeros")
        expected = reference.flip(expected) if mirror else expected
        assert module._crop_flip(image, top, left, mirror).tolist() == expected


def test_peer_draws_every_offset_and_mirrors_half():
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    image[0, 10, 5] = 1
    dataset = module._CropFlip(image.expand(3000, 1, 28, 28), torch.zeros(3000))
    places = torch.stack([dataset[n][0][0].nonzero()[0] for n in range(3000)])
    assert places[:, 0].unique().tolist() == list(range(6, 15))
    assert places[:, 1].unique().tolist() == [*range(1, 10), *range(18, 27)]
    assert abs((places[:, 1] > 14).float().mean() - 0.5) < 0.05


@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
def test_different_outputs_are_never_timed(monkeypatch, augmentation):
    def never(*args, **kwargs):
        raise AssertionError("timed although the outputs differ")

    monkeypatch.setattr(module, "alternate", never)
    if augmentation == "none":
        monkeypatch.setattr(module, "TensorStore", lambda images, labels: TensorStore(images.flip(-1), labels))
    else:
        monkeypatch.setattr(module, "_crop_flip", lambda image, top, left, mirror: image)
    cell = {"data": "random", "augmentation": augmentation, "workers": 0}
    with pytest.raises(RuntimeError, match="batch 0 of ours is not that of the DataLoader"):
        ImageLoaderSpeed(600).run(cell, "quick")


def test_is_registered_and_refuses_no_images():
    assert isinstance(load_experiment("speed.image_loader"), ImageLoaderSpeed)
    with pytest.raises(ValueError, match="num_images is 0"):
        ImageLoaderSpeed(0)
