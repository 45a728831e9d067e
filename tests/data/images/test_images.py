import gzip
import io
import math
import pickle
import struct
import tarfile
import urllib.request
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import graphseq.data.images.module as images_module
from graphseq.core import DataError
from graphseq.data import Compose, ImageDataModule, Normalize, RandomCrop, RandomHorizontalFlip, ToFloat
from graphseq.models import MLP, ConvNet
from graphseq.tasks import Classification
from tests.reference import image_transforms as reference

IDX = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz")
IDX = (*IDX, "t10k-labels-idx1-ubyte.gz")
CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def pixels(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def idx(array: np.ndarray) -> bytes:
    array = array.astype(np.uint8)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())


def write_idx_set(folder: Path, name: str = "MNIST", train: int = 100, test: int = 20, side: int = 8, **other) -> None:
    arrays = {
        "train_images": pixels(train, side, side),
        "train_labels": np.arange(train) % 10,
        "test_images": pixels(test, side, side, seed=1),
        "test_labels": np.arange(test) % 10,
        **other,
    }
    (folder / name).mkdir(parents=True)
    for file, array in zip(IDX, arrays.values(), strict=True):
        (folder / name / file).write_bytes(array if isinstance(array, bytes) else idx(array))


def cifar_archive(path: Path, leave_out: str = "", extra: dict[str, bytes] | None = None) -> None:
    path.parent.mkdir(parents=True)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    with tarfile.open(path, "w:gz") as archive:
        members = {}
        for seed, name in enumerate(names):
            labels = [seed] * 10 + list(range(10))  # the batch tells where it went
            members[f"cifar-10-batches-py/{name}"] = pickle.dumps(
                {"data": pixels(20, 3072, seed=seed), "labels": labels}
            )
        members |= extra or {}
        for name, content in members.items():
            if not name.endswith(leave_out or "nothing"):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def jpeg_archive(path: Path, split: str, per_class: int) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed (extra images)")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:xz") as archive:
        for number, label in enumerate(CIFAR):
            for position in range(per_class):
                picture = io.BytesIO()
                image.new("RGB", (32, 32), (25 * number, 0, position)).save(picture, "JPEG", quality=100)
                member = tarfile.TarInfo(f"{split}/{label}/{position:04}.jpg")
                member.size = picture.tell()
                archive.addfile(member, io.BytesIO(picture.getvalue()))


@pytest.fixture
def folder(tmp_path, monkeypatch, own_cache, no_network):
    """A mirror to write into, an empty cache, no network."""
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("GRAPHSEQ_MIRROR", str(tmp_path / "mirror"))
    return tmp_path / "mirror"


def module(name: str = "MNIST", **options) -> ImageDataModule:
    return ImageDataModule(name, **{"verify_checksums": False, "batch_size": 16, **options})


class TestSplits:
    def test_training_images_come_first_and_the_test_split_is_the_published_one(self, folder):
        write_idx_set(folder)
        data = module(val_fraction=0.25)
        images, labels = data.store.take(torch.arange(120))
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert np.array_equal(images[:100, 0].numpy(), pixels(100, 8, 8))
        assert np.array_equal(images[100:, 0].numpy(), pixels(20, 8, 8, seed=1))
        assert labels.tolist() == [*(n % 10 for n in range(100)), *(n % 10 for n in range(20))]
        assert data.splits["test"].tolist() == list(range(100, 120))
        assert sorted(torch.cat([data.splits["train"], data.splits["val"]]).tolist()) == list(range(100))

    @pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5])
    def test_validation_is_a_stratified_share(self, folder, fraction):
        write_idx_set(folder, train=200)
        data = module(val_fraction=fraction)
        _, labels = data.store.take(data.splits["val"])
        assert torch.bincount(labels, minlength=10).tolist() == [int(20 * fraction)] * 10
        assert len(data.splits["train"]) + len(data.splits["val"]) == 200

    def test_seed_decides(self, folder):
        write_idx_set(folder)
        first, same, other = (module(seed=seed).splits["val"].tolist() for seed in (0, 0, 1))
        assert first == same != other

    def test_digits_need_no_file(self, folder):
        data = ImageDataModule("digits")
        sizes = {name: len(index) for name, index in data.splits.items()}
        assert sizes == {"train": 1294, "val": 144, "test": 359}
        assert sorted(torch.cat(list(data.splits.values())).tolist()) == list(range(1797))
        images, labels = data.store.take(torch.arange(1797))
        assert images.shape == (1797, 1, 8, 8)
        assert set(images.unique().tolist()) == {round(level * 255 / 16) for level in range(17)}
        counts = torch.bincount(labels).tolist()
        for size, index in zip(sizes.values(), data.splits.values(), strict=True):
            part = torch.bincount(labels[index], minlength=10)
            assert all(abs(int(got) - size * count / 1797) < 1.5 for got, count in zip(part, counts, strict=True))
        assert data.splits["test"].tolist() != ImageDataModule("digits", seed=1).splits["test"].tolist()


class TestStatistics:
    def plain(self, images: list, index: list[int]) -> tuple[list[float], list[float]]:
        """Channel by channel, pixel by pixel, in Python's floats."""
        mean, std = [], []
        for channel in range(len(images[0])):
            values = [pixel / 255 for n in index for row in images[n][channel] for pixel in row]
            mean.append(sum(values) / len(values))
            std.append(math.sqrt(sum((value - mean[-1]) ** 2 for value in values) / len(values)))
        return mean, std

    @settings(max_examples=30, deadline=None)
    @given(
        count=st.integers(1, 6), channels=st.integers(1, 3), side=st.integers(1, 5), seed=st.integers(0, 99),
        block=st.sampled_from([1, 40, 2**23]),
    )  # fmt: skip
    def test_equal_plain_python(self, count, channels, side, seed, block):
        images = torch.from_numpy(pixels(count, channels, side, side, seed=seed))
        index = torch.randperm(count)[: max(1, count - 1)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(images_module, "BLOCK_BYTES", block)
            mean, std = images_module._moments(images, index)
        expected_mean, expected_std = self.plain(images.tolist(), index.tolist())
        assert mean == pytest.approx(expected_mean, rel=1e-12)
        assert std == pytest.approx([value or 1.0 for value in expected_std], rel=1e-9)

    def test_come_from_the_training_split_alone(self, folder):
        write_idx_set(folder)
        first = module()
        touched = pixels(100, 8, 8)
        touched[first.splits["val"].numpy()] = 255
        write_idx_set(folder, "FashionMNIST", train_images=touched, test_images=np.full((20, 8, 8), 255))
        second = module("FashionMNIST")
        assert torch.equal(first.splits["train"], second.splits["train"])
        assert (first.mean, first.std) == (second.mean, second.std)
        images, _ = first.store.take(first.splits["train"])
        mean, std = self.plain(images.tolist(), list(range(len(images))))
        assert first.mean == pytest.approx(mean)
        assert first.std == pytest.approx(std)

    def test_constant_images_are_not_divided_by_zero(self, folder):
        write_idx_set(folder, train_images=np.full((100, 8, 8), 51))
        data = module()
        assert (data.mean, data.std) == (pytest.approx([0.2]), [1.0])
        images, _ = next(data.batches("train"))
        assert images.abs().max() < 1e-6

    def test_known_numbers_of_published_sets(self, mirror, no_network):
        for name, mean, std in (("MNIST", 0.1307, 0.3081), ("FashionMNIST", 0.2860, 0.3530)):
            data = ImageDataModule(name, val_fraction=0.0)
            assert (round(data.mean[0], 4), round(data.std[0], 4)) == (mean, std)


class TestTransforms:
    def test_batches_are_normalised(self, folder):
        write_idx_set(folder)
        data = module()
        index = data.train_dataloader().order()[:16].tolist()
        images, labels = next(data.batches("train"))
        raw, expected_labels = data.store.take(torch.tensor(index))
        expected = [reference.normalize(image, data.mean, data.std, 1 / 255) for image in raw.tolist()]
        assert images.dtype == torch.float32
        assert torch.allclose(images, torch.tensor(expected), atol=1e-5)
        assert torch.equal(labels, expected_labels)
        everything = torch.cat([batch for batch, _ in data.batches("train")])
        assert abs(everything.mean()) < 1e-5
        assert abs(everything.std(correction=0) - 1) < 1e-5

    @pytest.mark.parametrize(("side", "padding"), [(8, 1), (16, 2), (28, 4), (32, 4)])
    @pytest.mark.parametrize("augmentation", ["crop", "crop_flip"])
    def test_augmentation_is_of_training_alone(self, folder, side, padding, augmentation):
        write_idx_set(folder, side=side)
        data = module(augmentation=augmentation, batch_size=100, val_fraction=0.0)
        order = data.train_dataloader().order()
        raw, _ = data.store.take(order)
        torch.manual_seed(7)
        images, _ = next(data.batches("train"))
        torch.manual_seed(7)
        moved = RandomCrop(padding)(raw)
        moved = RandomHorizontalFlip()(moved) if augmentation == "crop_flip" else moved
        assert not torch.equal(moved, raw)
        assert torch.equal(images, Normalize(data.mean, data.std)(moved))
        tests, _ = next(data.batches("test"))
        assert torch.equal(tests, Normalize(data.mean, data.std)(data.store.take(data.splits["test"])[0]))

    def test_your_own_take_their_place(self, folder):
        write_idx_set(folder)
        own = Compose([RandomCrop(1), ToFloat()])
        data = module(train_transform=own)
        data.load()
        assert data.train_transform is own
        assert isinstance(data.eval_transform, Normalize)
        data = module(eval_transform=ToFloat())
        assert next(data.batches("val"))[0].min() >= 0
        assert next(data.batches("train"))[0].min() < 0

    def test_wrong_options(self):
        for options, message in (
            ({"name": "Cats"}, "name is 'Cats'; it must be one of MNIST, FashionMNIST, USPS, CIFAR10, digits"),
            ({"val_fraction": 1.0}, r"val_fraction is 1\.0; it must be in \[0, 1\)"),
            ({"val_fraction": -0.1}, r"val_fraction is -0\.1"),
            ({"val_fraction": math.nan}, "val_fraction is nan"),
            ({"augmentation": "mixup"}, "augmentation is 'mixup'"),
            ({"augmentation": "crop", "train_transform": ToFloat()}, "give one of them"),
            ({"batch_size": 0}, "batch_size is 0"),
        ):
            with pytest.raises(ValueError, match=message):
                ImageDataModule(**{"name": "MNIST", **options})

    def test_validation_too_small_for_one_image(self, folder):
        write_idx_set(folder)
        with pytest.raises(DataError, match="100 samples .*val split"):
            module(val_fraction=1e-4).load()


class TestSizes:
    @pytest.mark.parametrize("network", [ConvNet, MLP])
    def test_networks_fit(self, folder, network):
        write_idx_set(folder, side=12)
        data = module()
        assert data.image_shape == (1, 12, 12)
        assert (data.num_features, data.input_size, data.num_outputs) == (1, 144, 10)
        size = data.num_features if network is ConvNet else data.input_size
        model = network(size, data.num_outputs)
        assert model(next(data.batches("val"))[0]).shape == (10, 10)

    def test_store_stays_uint8(self, folder):
        write_idx_set(folder)
        data = module()
        assert data.store.nbytes == 120 * 64 + 120 * 8
        assert "train 90, val 10, test 20" in str(data)


class TestUSPS:
    def write(self, folder: Path) -> None:
        h5py = pytest.importorskip("h5py", reason="h5py is not installed (extra images)")
        (folder / "USPS").mkdir()
        with h5py.File(folder / "USPS/usps.h5", "w") as file:
            for split, count in (("train", 100), ("test", 20)):
                file[f"{split}/data"] = (pixels(count, 256) / 255).astype(np.float32)
                file[f"{split}/target"] = np.arange(count) % 10

    def test_is_decoded_once(self, folder, monkeypatch):
        self.write(folder)
        first = module("USPS")
        assert first.image_shape == (1, 16, 16)
        assert len(first.splits["test"]) == 20
        monkeypatch.setattr(images_module, "read_usps_hdf5", None)
        second = module("USPS")
        index = torch.arange(120)
        assert all(torch.equal(*pair) for pair in zip(first.store.take(index), second.store.take(index), strict=True))
        assert second.source == "USPS"

    def test_another_file_is_not_taken_for_the_kept_one(self, folder, own_cache, monkeypatch):
        self.write(folder)
        module("USPS").load()
        (own_cache / "raw/USPS/usps.h5").write_bytes(b"another file")
        with pytest.raises(DataError, match=r"usps\.h5.*HDF5"):
            module("USPS").load()


class TestCIFAR:
    def test_jpeg_archives_of_the_mirror(self, folder, monkeypatch):
        jpeg_archive(folder / "CIFAR10_jpeg/cifar10_train_jpeg.tar.xz", "train", 4)
        jpeg_archive(folder / "CIFAR10_jpeg/cifar10_test_jpeg.tar.xz", "test", 2)
        cifar_archive(folder / "CIFAR10/cifar-10-python.tar.gz")
        data = module("CIFAR10", val_fraction=0.25)
        assert data.source == "CIFAR-10 (JPEG)"
        assert data.image_shape == (3, 32, 32)
        images, labels = data.store.take(torch.arange(60))
        assert labels.tolist() == [*np.repeat(range(10), 4), *np.repeat(range(10), 2)]
        assert (images[:, 0].float().mean((1, 2)) - 25 * labels).abs().max() < 3  # lossy
        monkeypatch.setattr(images_module, "read_jpeg_archive", None)
        assert module("CIFAR10", val_fraction=0.25).source == "CIFAR-10 (JPEG)"

    def test_one_archive_without_the_other(self, folder):
        jpeg_archive(folder / "CIFAR10_jpeg/cifar10_train_jpeg.tar.xz", "train", 1)
        cifar_archive(folder / "CIFAR10/cifar-10-python.tar.gz")
        with pytest.raises(DataError, match=r"CIFAR10_jpeg needs cifar10_test_jpeg\.tar\.xz"):
            module("CIFAR10").load()

    def test_original_where_there_is_no_jpeg(self, folder, monkeypatch, tmp_path):
        escape = tmp_path / "escaped"
        extra = {"../escaped": b"x", str(escape): b"x", "cifar-10-batches-py/readme.html": b"x"}
        cifar_archive(folder / "CIFAR10/cifar-10-python.tar.gz", extra=extra)
        data = module("CIFAR10")
        assert data.source == "CIFAR-10"
        images, labels = data.store.take(torch.arange(120))
        for batch in range(6):
            assert np.array_equal(images[20 * batch : 20 * batch + 20].flatten(1).numpy(), pixels(20, 3072, seed=batch))
            assert labels[20 * batch : 20 * batch + 10].tolist() == [batch] * 10
        assert data.splits["test"].tolist() == list(range(100, 120))
        assert not escape.exists()
        monkeypatch.setattr(images_module, "read_cifar_batches", None)
        assert module("CIFAR10").source == "CIFAR-10"

    def test_archive_without_a_batch(self, folder):
        cifar_archive(folder / "CIFAR10/cifar-10-python.tar.gz", leave_out="data_batch_3")
        with pytest.raises(DataError, match=r"cifar-10-python.*data_batch_3"):
            module("CIFAR10").load()

    def test_truncated_archive(self, folder, own_cache):
        path = folder / "CIFAR10/cifar-10-python.tar.gz"
        cifar_archive(path)
        raw = path.read_bytes()
        for length in (0, 100, len(raw) // 2):
            path.write_bytes(raw[:length])
            (own_cache / "raw/CIFAR10/cifar-10-python.tar.gz").unlink(missing_ok=True)
            with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz is truncated"):
                module("CIFAR10").load()


class Server:
    """Answers downloads from a dictionary, and remembers what was asked for."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.asked = files, []

    def __call__(self, address, timeout):
        self.asked.append(address)
        return io.BytesIO(self.files[address.rsplit("/", 1)[-1]])


class TestRawFiles:
    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("MNIST", r"MNIST needs train-images.*GRAPHSEQ_MIRROR.*ossci-datasets"),
            ("FashionMNIST", r"FashionMNIST needs train-images.*fashion-mnist\.s3"),
            ("USPS", r"USPS needs usps\.h5.*address"),
            ("CIFAR10", r"CIFAR10 needs cifar-10-python.*toronto.*cifar10_train_jpeg.*CIFAR10_jpeg"),
        ],
    )
    @pytest.mark.parametrize("with_mirror", [True, False])
    def test_nowhere(self, folder, monkeypatch, name, message, with_mirror):
        if not with_mirror:
            monkeypatch.delenv("GRAPHSEQ_MIRROR")
            message = message.replace("GRAPHSEQ_MIRROR", "GRAPHSEQ_MIRROR is not set")
        with pytest.raises(DataError, match=message):
            ImageDataModule(name).load()

    @pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
    def test_wrong_checksum(self, folder, own_cache, name):
        write_idx_set(folder, name)
        with pytest.raises(DataError, match=r"train-images.* has SHA-256 .*verify_checksums=False"):
            ImageDataModule(name).load()
        assert not list(own_cache.rglob("*.gz"))
        assert ImageDataModule(name, verify_checksums=False).num_features == 1

    def test_wrong_checksum_of_archives(self, folder, own_cache):
        jpeg_archive(folder / "CIFAR10_jpeg/cifar10_train_jpeg.tar.xz", "train", 1)
        with pytest.raises(DataError, match=r"cifar10_train_jpeg.* has SHA-256"):
            ImageDataModule("CIFAR10").load()
        assert not list(own_cache.rglob("*.xz"))

    def known(self, folder: Path, monkeypatch, place: int) -> None:
        """Make the written files known: their checksums stand first or second."""
        from graphseq.data import checksum

        table = {name: ["0" * 64, "1" * 64] for name in IDX}
        for name in IDX:
            table[name][place] = checksum(folder / "MNIST" / name)
        monkeypatch.setitem(images_module._CHECKSUMS, "MNIST", {name: tuple(known) for name, known in table.items()})

    @pytest.mark.parametrize("place", [0, 1])
    def test_either_known_packing_is_taken(self, folder, monkeypatch, place):
        write_idx_set(folder)
        self.known(folder, monkeypatch, place)
        for _ in range(2):  # from the mirror, then from the cache
            assert len(ImageDataModule("MNIST").store) == 120

    def test_downloads_must_be_the_published_files(self, folder, monkeypatch, own_cache):
        write_idx_set(folder)
        self.known(folder, monkeypatch, 0)
        files = {name: (folder / "MNIST" / name).read_bytes() for name in IDX}
        monkeypatch.delenv("GRAPHSEQ_MIRROR")
        cut = Server({**files, IDX[2]: files[IDX[2]][:-9]})
        monkeypatch.setattr(urllib.request, "urlopen", cut)
        with pytest.raises(DataError, match=r"needs t10k-images.*t10k-images-idx3-ubyte\.gz has SHA"):
            ImageDataModule("MNIST").load()
        whole = Server(files)
        monkeypatch.setattr(urllib.request, "urlopen", whole)
        assert len(ImageDataModule("MNIST").store) == 120
        prefix = "https://ossci-datasets.s3.amazonaws.com/mnist/"
        assert whole.asked == [prefix + name for name in IDX[2:]]  # what had arrived whole stays

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({"train_images": idx(pixels(100, 8, 8))[:-20]}, "train-images.*gzip file"),
            ({"train_labels": np.arange(99) % 10}, r"labels.*\(99,\).*100 images"),
            ({"test_labels": np.arange(21) % 10}, r"labels.*\(21,\).*20 images"),
            ({"train_labels": np.arange(100)}, "labels from 0 to 99"),
            ({"test_images": pixels(20, 9, 9)}, r"MNIST .*\(1, 8, 8\), .*\(1, 9, 9\)"),
            ({"train_images": np.arange(100) % 10}, "uint8 images"),
        ],
    )
    def test_files_that_do_not_fit(self, folder, other, message):
        write_idx_set(folder, **other)
        with pytest.raises(DataError, match=message):
            module().load()

    @pytest.mark.parametrize(
        ("name", "sizes", "shape", "test_counts"),
        [
            ("MNIST", (60_000, 10_000), (1, 28, 28), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
            ("FashionMNIST", (60_000, 10_000), (1, 28, 28), [1000] * 10),
            ("USPS", (7_291, 2_007), (1, 16, 16), [359, 264, 198, 166, 200, 160, 170, 147, 166, 177]),
            pytest.param("CIFAR10", (50_000, 10_000), (3, 32, 32), [1000] * 10, marks=pytest.mark.slow),
        ],
    )
    def test_real_sets(self, mirror, no_network, name, sizes, shape, test_counts):
        data = ImageDataModule(name, val_fraction=0.1)
        assert data.image_shape == shape
        assert len(data.splits["train"]) + len(data.splits["val"]) == sizes[0]
        assert len(data.splits["val"]) == round(sizes[0] / 10)
        _, labels = data.store.take(data.splits["test"])
        assert torch.bincount(labels).tolist() == test_counts


class TestCheckpoints:
    def test_statistics_of_the_checkpoint_are_used(self, folder):
        write_idx_set(folder)
        write_idx_set(folder, "FashionMNIST", train_images=pixels(100, 8, 8) // 2)
        trained, other = module(augmentation="crop"), module("FashionMNIST", augmentation="crop")
        state = trained.state_dict()
        assert state["mean"] == trained.mean != other.mean
        other.load_state_dict(state)
        assert (other.mean, other.std) == (trained.mean, trained.std)
        raw, _ = other.store.take(other.splits["test"][:16])
        assert torch.equal(next(other.batches("test"))[0], Normalize(trained.mean, trained.std)(raw))
        assert isinstance(other.train_transform.transforms[0], RandomCrop)

    def test_other_number_of_channels(self, folder):
        write_idx_set(folder)
        state = {**module().state_dict(), "mean": [0.1] * 3, "std": [0.2] * 3}
        with pytest.raises(DataError, match="3 channels, MNIST has 1"):
            module().load_state_dict(state)

    def test_trains_and_is_tested_with_the_same_numbers(self, tmp_path, folder):
        options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        options |= {"accelerator": "cpu", "default_root_dir": tmp_path}
        task = Classification(ConvNet(1, 10, hidden_channels=4, num_layers=2), 10)
        trainer = lightning.Trainer(max_epochs=1, limit_train_batches=2, **options)
        data = ImageDataModule("digits", augmentation="crop", batch_size=32)
        trainer.fit(task, data)
        path = tmp_path / "digits.ckpt"
        trainer.save_checkpoint(path)
        saved = torch.load(path, weights_only=True)["ImageDataModule"]
        assert (saved["mean"], saved["std"]) == (data.mean, data.std)
        other = ImageDataModule("digits", seed=5)
        assert other.mean != data.mean
        with pytest.warns(UserWarning, match="'train': 1294.*training split"):
            lightning.Trainer(**options).test(task, other, ckpt_path=path, verbose=False)
        assert other.mean == data.mean
        with pytest.raises(DataError, match="'train': 1294.*; resume"):
            lightning.Trainer(max_epochs=2, **options).fit(task, ImageDataModule("digits", seed=5), ckpt_path=path)

    def test_own_transforms_survive_it(self, folder):
        write_idx_set(folder)
        data = module(eval_transform=nn.Identity())
        data.load_state_dict(data.state_dict())
        assert next(data.batches("val"))[0].dtype == torch.uint8
