"""Data module of published image sets: MNIST, Fashion-MNIST, USPS, CIFAR-10, and scikit-learn's digits."""

import math
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Unpack, get_args

import torch
from torch import Tensor, nn

from graphseq.core.errors import DataError
from graphseq.data.base import DataOptions, StoreDataModule
from graphseq.data.cache import cache_folder, cached, checksum, mirror_folder, raw_files
from graphseq.data.images.files import read_cifar_batches, read_idx_pair, read_jpeg_archive, read_usps_hdf5
from graphseq.data.shots import few_shots
from graphseq.data.splits import random_split
from graphseq.data.store import BLOCK_BYTES, TensorStore
from graphseq.data.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip

__all__ = ["ImageDataModule"]

ImageSetName = Literal["MNIST", "FashionMNIST", "USPS", "CIFAR10", "digits"]
Augmentation = Literal["none", "crop", "crop_flip"]

_FORMAT = "images-1"
_NUM_CLASSES = 10  # of all these sets
_DIGITS_TEST_FRACTION = 0.2


class _Images(NamedTuple):
    images: Tensor
    labels: Tensor
    num_train: int | None
    """Published training images, which come first; None where no split was published."""
    source: str


class ImageDataModule(StoreDataModule):
    """Published set of small images of 10 classes, stored as uint8 and normalised on the device.

    ======================  =======================  ============  =============================================
    name                    train + test             shape         raw files, from mirror or cache, else
    ======================  =======================  ============  =============================================
    MNIST                   60,000 + 10,000          1 x 28 x 28   downloaded
    FashionMNIST            60,000 + 10,000          1 x 28 x 28   downloaded
    USPS                    7,291 + 2,007            1 x 16 x 16   ``USPS/usps.h5``; no address is known
    CIFAR10                 50,000 + 10,000          3 x 32 x 32   see below
    digits                  1,797, no split          1 x 8 x 8     comes with scikit-learn: no file, no network
    ======================  =======================  ============  =============================================

    The test split is the published one, and the validation split is taken from the published training images. For
    ``digits``, which has no published split, a fifth of the images (stratified, drawn with ``seed``) is the test split;
    its 17 grey levels are mapped to 0 to 255.

    CIFAR10 is taken from ``CIFAR10_jpeg/cifar10_{train,test}_jpeg.tar.xz`` if the mirror or the cache has these
    files. They are **CIFAR-10 (JPEG)**: every image was compressed with loss, so accuracies are near those of the
    original but not comparable with published ones. Otherwise the original ``CIFAR10/cifar-10-python.tar.gz`` is used
    or downloaded. The attribute ``source`` names the version.

    Without transforms of your own, training batches are augmented and all batches normalised by the mean and
    standard deviation of each channel over the training split, see :attr:`mean` and :attr:`std`. Checkpoints hold
    them, so that a network is tested with the normalisation of its training.

    Source: MNIST: Y. LeCun, C. Cortes, C. Burges; Fashion-MNIST: arXiv 1708.07747; USPS: J. Hull, IEEE TPAMI 16(5),
    1994; CIFAR-10: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.

    Args:
        name: name of the set.
        val_fraction: share of the training images for the validation split, stratified by class, in [0, 1); 0 for none.
        class_groups: groups of the 10 classes, each class in one of them; the number of its group becomes the label of
            an image, such as ``[[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]`` for even and odd digits. The class itself stays in
            :attr:`fine_labels`, and splits are those without groups. None for the classes as labels.
        augmentation: augmentation of training images: ``none``, ``crop`` (shifts by up to an eighth of the side on each
            axis, 4 pixels for 28 and 32), or ``crop_flip`` (also flips with probability 1/2: not for digits).
        num_shots: number of labelled training images, drawn with ``seed`` from the training split, see
            :func:`few_shots`; with the same seed a larger number contains the images of a smaller one. None for all.
        shots_per_class: number of labelled training images of each class, drawn with ``seed``; None for all.
        verify_checksums: whether to refuse raw files with another SHA-256 than the known ones.
        options: further arguments of :class:`StoreDataModule`; ``train_transform`` replaces augmentation and
            normalisation of training batches, and ``eval_transform`` the normalisation of all others; their inputs are
            uint8 images (B, C, Y, X).

    Yields:
        images float32 (B, C, Y, X), or the output of your transform, and labels int64 (B,).

    Raises:
        ValueError: if an argument is out of range, or both ``augmentation`` and ``train_transform``, or both numbers of
            shots, are given.
        DataError: when the data are read, if raw files are missing, corrupt, or do not have the known checksums, or if
            there are too few images for the shots, or none of a class among them.
        OptionalDependencyError: when the data are read, if USPS needs h5py or JPEG archives need Pillow.

    Example:
        >>> data = ImageDataModule("digits", augmentation="crop", batch_size=64)
        >>> data.num_features, data.input_size, data.num_outputs, data.image_shape
        (1, 64, 10, (1, 8, 8))
        >>> images, labels = next(data.batches("train"))
        >>> images.shape, images.dtype
        (torch.Size([64, 1, 8, 8]), torch.float32)
    """

    def __init__(
        self,
        name: ImageSetName,
        *,
        val_fraction: float = 0.1,
        class_groups: list[list[int]] | None = None,
        augmentation: Augmentation = "none",
        num_shots: int | None = None,
        shots_per_class: int | None = None,
        verify_checksums: bool = True,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(
            **options,
        )
        if name not in get_args(ImageSetName):
            raise ValueError(f"name is {name!r}; it must be one of {', '.join(get_args(ImageSetName))}")
        if augmentation not in get_args(Augmentation):
            raise ValueError(f"augmentation is {augmentation!r}; it must be 'none', 'crop' or 'crop_flip'")
        if augmentation != "none" and self.train_transform is not None:
            raise ValueError(
                f"augmentation is {augmentation!r} and train_transform is given, which takes its place; give one of "
                "them, and put RandomCrop and RandomHorizontalFlip into your transform if it is to have them"
            )
        if not 0 <= val_fraction < 1:
            raise ValueError(f"val_fraction is {val_fraction}; it must be in [0, 1)")
        if class_groups is not None:
            _check_groups(class_groups)
        if num_shots is not None and shots_per_class is not None:
            raise ValueError(f"num_shots is {num_shots} and shots_per_class is {shots_per_class}; give one of them")
        for title, number in (("num_shots", num_shots), ("shots_per_class", shots_per_class)):
            if number is not None and number < 1:
                raise ValueError(f"{title} is {number}; it must be at least 1")
        self.name: ImageSetName = name
        self.num_shots, self.shots_per_class = num_shots, shots_per_class
        self.class_groups = class_groups
        self.val_fraction = val_fraction
        self.augmentation: Augmentation = augmentation
        self.verify_checksums = verify_checksums
        self._own_train, self._own_eval = self.train_transform, self.eval_transform
        self._source = ""
        self._fine_labels = torch.empty(0, dtype=torch.int64)
        self._mean: list[float] = []
        self._std: list[float] = []

    @property
    def source(self) -> str:
        """Name of the version that was read, such as ``CIFAR-10 (JPEG)``."""
        self.load()
        return self._source

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Numbers of channels, rows and columns of an image."""
        images, _ = self.store.take(torch.zeros(1, dtype=torch.int64))
        channels, height, width = images.shape[1:]
        return channels, height, width

    @property
    def num_features(self) -> int:
        """Number of channels of an image."""
        return self.image_shape[0]

    @property
    def input_size(self) -> int:
        """Number of values of an image: channels times rows times columns."""
        return math.prod(self.image_shape)

    @property
    def num_outputs(self) -> int:
        """Number of classes, or of their groups."""
        return _NUM_CLASSES if self.class_groups is None else len(self.class_groups)

    @property
    def fine_labels(self) -> Tensor:
        """Class of each image before classes are grouped, int64 (N,)."""
        self.load()
        return self._fine_labels

    @property
    def mean(self) -> list[float]:
        """Mean of each channel over the training split, in units of [0, 1]."""
        self.load()
        return list(self._mean)

    @property
    def std(self) -> list[float]:
        """Standard deviation of each channel over the training split, in units of [0, 1]; 1 where it is zero."""
        self.load()
        return list(self._std)

    def read(self) -> tuple[TensorStore, dict[str, Tensor]]:
        """Return the images and labels, training images first, and their split."""
        images, labels, num_train, self._source = _read(self.name, self.verify_checksums)
        shares = [1 - self.val_fraction, self.val_fraction, 0.0]
        if num_train is None:
            everything = random_split(
                len(images), [1 - _DIGITS_TEST_FRACTION, 0.0, _DIGITS_TEST_FRACTION], self.seed, labels
            )
            training, test = everything["train"], everything["test"]
        else:
            training, test = torch.arange(num_train), torch.arange(num_train, len(images))
        inner = random_split(len(training), shares, self.seed, labels[training])
        splits = {"train": training[inner["train"]], "val": training[inner["val"]], "test": test}
        self._fine_labels = labels
        if self.class_groups is not None:
            labels = _group_of_class(self.class_groups)[labels]
        if not self.predicting and (self.num_shots is not None or self.shots_per_class is not None):
            shots = {"num_shots": self.num_shots, "shots_per_class": self.shots_per_class}
            splits["train"] = few_shots(splits["train"], labels, self.seed, **shots)
        self._set_statistics(*_moments(images, splits["train"]), side=min(images.shape[2:]))
        return TensorStore(images, labels), splits

    def _set_statistics(self, mean: list[float], std: list[float], side: int) -> None:
        self._mean, self._std = mean, std
        steps: list[nn.Module] = []
        if self.augmentation != "none":
            steps.append(RandomCrop(padding=round(side / 8)))
        if self.augmentation == "crop_flip":
            steps.append(RandomHorizontalFlip())
        normalize = Normalize(mean, std)
        self.train_transform = self._own_train or Compose([*steps, normalize])
        self.eval_transform = self._own_eval or normalize

    def state_dict(self) -> dict[str, Any]:
        """Return the state for checkpoints: splits, and the fitted mean and standard deviation."""
        return {**super().state_dict(), "mean": self.mean, "std": self.std}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the data match a checkpoint, and normalise by its mean and standard deviation.

        Raises:
            DataError: if training would resume on another split, or the images have another number of channels.
        """
        super().load_state_dict(state_dict)
        if len(state_dict["mean"]) != self.num_features:
            raise DataError(
                f"the checkpoint was trained on images of {len(state_dict['mean'])} channels, {self.name} has "
                f"{self.num_features}; use the data set it was trained on"
            )
        self._set_statistics(list(state_dict["mean"]), list(state_dict["std"]), side=min(self.image_shape[1:]))


def _check_groups(groups: list[list[int]]) -> None:
    members = sorted(member for group in groups for member in group)
    if len(groups) < 2 or members != list(range(_NUM_CLASSES)):
        raise ValueError(
            f"class_groups is {groups}; give at least two groups that hold each of the classes 0 to "
            f"{_NUM_CLASSES - 1} once"
        )


def _group_of_class(groups: list[list[int]]) -> Tensor:
    return torch.tensor([next(g for g, group in enumerate(groups) if c in group) for c in range(_NUM_CLASSES)])


def _moments(images: Tensor, index: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of the images ``index``, exact up to the last division.

    Grey levels are counted block by block, without a floating-point copy of the images, and summed as integers.
    """
    levels = torch.arange(256, dtype=torch.int64)
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for part in index.split(max(1, BLOCK_BYTES // images[0].numel())):
        for channel, plane in enumerate(images.index_select(0, part).unbind(1)):
            counts[channel] += torch.bincount(plane.flatten(), minlength=256)
    mean, std = [], []
    for of_level in counts:
        total, first, second = int(of_level.sum()), int(of_level @ levels), int(of_level @ levels**2)
        mean.append(first / total / 255)
        # Python integers: exact for any number of pixels
        std.append(math.sqrt(total * second - first * first) / total / 255 or 1.0)
    return mean, std


def _read(name: ImageSetName, verify: bool) -> _Images:
    if name == "digits":
        from sklearn.datasets import load_digits  # here, since a start without digits is a second faster

        digits = load_digits()
        levels = torch.as_tensor(digits.images, dtype=torch.float64) * (255 / 16)
        labels = torch.as_tensor(digits.target, dtype=torch.int64)
        return _Images(levels.round().to(torch.uint8).unsqueeze(1), labels, None, "digits of scikit-learn")
    if name == "USPS":
        return _read_usps(verify)
    if name == "CIFAR10":
        return _read_cifar(verify)
    files = _fetch(name, [file for pair in _IDX_PAIRS for file in pair], verify, _ADDRESSES[name])
    parts = [read_idx_pair(files[images], files[labels], _NUM_CLASSES) for images, labels in _IDX_PAIRS]
    return _join(name, *parts[0], *parts[1])


def _join(source: str, images: Tensor, labels: Tensor, test_images: Tensor, test_labels: Tensor) -> _Images:
    if images.shape[1:] != test_images.shape[1:]:
        raise DataError(
            f"the training images of {source} are {tuple(images.shape[1:])}, its test images "
            f"{tuple(test_images.shape[1:])}; the files are of different sets"
        )
    return _Images(torch.cat([images, test_images]), torch.cat([labels, test_labels]), len(images), source)


def _read_usps(verify: bool) -> _Images:
    path = _fetch("USPS", ["usps.h5"], verify, None)["usps.h5"]

    def decode() -> dict[str, Any]:
        return _join("USPS", *read_usps_hdf5(path, "train"), *read_usps_hdf5(path, "test"))._asdict()

    return _Images(**cached("usps", [_FORMAT, checksum(path)], decode))


def _read_cifar(verify: bool) -> _Images:
    if _fetch("CIFAR10_jpeg", _JPEG_FILES, verify, None, required=False):
        files = _fetch("CIFAR10_jpeg", _JPEG_FILES, verify, None)  # one without the other: names what is missing
        paths = [files[name] for name in _JPEG_FILES]

        def decode() -> dict[str, Any]:
            train, test = (read_jpeg_archive(path, _CIFAR_CLASSES) for path in paths)
            return _join("CIFAR-10 (JPEG)", *train, *test)._asdict()

        return _Images(**cached("cifar10-jpeg", [_FORMAT, *map(checksum, paths)], decode))
    try:
        path = _fetch("CIFAR10", [_CIFAR_ARCHIVE], verify, _ADDRESSES["CIFAR10"])[_CIFAR_ARCHIVE]
    except DataError as error:
        raise DataError(
            f"{error}. In its place {' and '.join(_JPEG_FILES)} in the folder CIFAR10_jpeg will do"
        ) from error
    return _Images(**cached("cifar10", [_FORMAT, checksum(path)], lambda: _read_cifar_archive(path)._asdict()))


def _read_cifar_archive(path: Path) -> _Images:
    """Read the batches in the archive; they are unpacked one by one into a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="graphseq-") as folder:
        batches = [Path(folder, name) for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")]
        try:
            with tarfile.open(path) as archive:
                for batch in batches:
                    # by name, into fixed file names: nothing else in the archive is written
                    member = archive.extractfile(f"cifar-10-batches-py/{batch.name}")
                    if member is None:
                        raise KeyError(f"{batch.name} is no file")
                    with batch.open("wb") as file:
                        shutil.copyfileobj(member, file)
        except (EOFError, KeyError, tarfile.TarError, zlib.error, OSError) as error:
            raise DataError(
                f"{path} is truncated, corrupt or not the archive 'CIFAR-10 python version' ({error}); get it again"
            ) from error
        return _join("CIFAR-10", *read_cifar_batches(batches[:5], "labels"), *read_cifar_batches(batches[5:], "labels"))


def _fetch(
    dataset: str, names: Sequence[str], verify: bool, address: str | None, *, required: bool = True
) -> dict[str, Path]:
    """Return raw files with known checksums; if a file has several, the one that matches is required."""
    mirror = mirror_folder()
    places = [cache_folder() / "raw" / dataset, *([mirror / dataset] if mirror else [])]
    expected = {}
    for name in names if verify else ():
        known = _CHECKSUMS[dataset][name]
        here = next((place / name for place in places if (place / name).is_file()), None)
        found = checksum(here) if here is not None and len(known) > 1 else None
        expected[name] = found if found in known else known[0]
    locate = None if address is None else lambda name: f"{address}/{name}"
    return raw_files(
        dataset, names if required else [], optional=[] if required else names, address=locate, checksums=expected
    )


_IDX_PAIRS = (
    ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
)
_JPEG_FILES = ("cifar10_train_jpeg.tar.xz", "cifar10_test_jpeg.tar.xz")
_CIFAR_ARCHIVE = "cifar-10-python.tar.gz"
_CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_ADDRESSES = {
    "MNIST": "https://ossci-datasets.s3.amazonaws.com/mnist",
    "FashionMNIST": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    "CIFAR10": "https://www.cs.toronto.edu/~kriz",
}
# SHA-256 of the raw files; for MNIST also of a repacking with the same content
_CHECKSUMS: dict[str, dict[str, tuple[str, ...]]] = {
    "MNIST": {
        "train-images-idx3-ubyte.gz": (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "12bacf187eba4f770a04d97be5dbaad9289fe5d89a89729b6af3255c8bbfa9e1",
        ),
        "train-labels-idx1-ubyte.gz": (
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "7f4ede8117c9f121a708539f3c1b71dc8cb827447542df31cdf7b815d0762e1f",
        ),
        "t10k-images-idx3-ubyte.gz": (
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "c99a2fc9c8f7934dac9481251fc235227437fdcccfb8de53efcb767a8c3b057e",
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            "e2650e6732b191c90c7705906a2d65c6c0a20efb31f5c53d1b2b0bda74d911e9",
        ),
    },
    "FashionMNIST": {
        "train-images-idx3-ubyte.gz": ("3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",),
        "train-labels-idx1-ubyte.gz": ("a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",),
        "t10k-images-idx3-ubyte.gz": ("346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",),
        "t10k-labels-idx1-ubyte.gz": ("67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",),
    },
    "USPS": {"usps.h5": ("734f88c541104a956d88be2c95d03b4a463ffd74ccc2ba9c80841fb98e3fcb36",)},
    "CIFAR10_jpeg": {
        "cifar10_train_jpeg.tar.xz": ("e1b35d356468920213c6f45c2b76dd25d5d3de07ee212ef700721e1ec13a2acb",),
        "cifar10_test_jpeg.tar.xz": ("2659841aeb564b0152374a313fd9a21926ef7db4f5b21042c0b55a3adb011a32",),
    },
    "CIFAR10": {_CIFAR_ARCHIVE: ("6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",)},
}
