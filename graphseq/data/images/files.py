"""Readers of image files in their published formats: IDX, CIFAR pickles, JPEG archives, USPS in HDF5."""

import gzip
import io
import lzma
import math
import pickle
import pickletools
import re
import sys
import tarfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from graphseq.core import DataError, OptionalDependencyError

__all__ = ["read_cifar_batches", "read_idx", "read_idx_pair", "read_jpeg_archive", "read_usps_hdf5"]

_IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_CIFAR_CLASSES = {"labels": 10, "fine_labels": 100, "coarse_labels": 20}
_AGAIN = "get the file again, or check that its download finished"


def _read_bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from error
    # told by content, not by suffix: the published files go by both names, packed and unpacked
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is a truncated or corrupt gzip file ({error}); {_AGAIN}") from error


def _check_labels(source: str, labels: Tensor, num_images: int, num_classes: int) -> None:
    if labels.shape != (num_images,):
        raise DataError(
            f"{source} has labels of shape {tuple(labels.shape)} for {num_images} images; one label an image is "
            "needed: check that both are of the same split"
        )
    if len(labels):
        lowest, highest = (int(value) for value in labels.aminmax())
        if lowest < 0 or highest >= num_classes:
            raise DataError(
                f"{source} has labels from {lowest} to {highest}, outside 0..{num_classes - 1}; "
                "check the number of classes and that the file is the one that holds the labels"
            )


def read_idx(path: str | Path) -> Tensor:
    """Read one IDX file, the format of MNIST and its successors, plain or gzipped.

    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", section on file formats.

    Args:
        path: path of the file, plain or gzipped, as its content shows.

    Returns:
        The array of the file in the machine's byte order: uint8, int8, int16, int32, float32 or float64.

    Raises:
        DataError: if the file is missing, truncated, longer than its header says, or not IDX.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "labels")
        ...     _ = path.write_bytes(bytes([0, 0, 0x08, 1, 0, 0, 0, 3]) + bytes([7, 2, 1]))
        ...     read_idx(path)
        tensor([7, 2, 1], dtype=torch.uint8)
    """
    path = Path(path)
    raw = _read_bytes(path)
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _IDX_DTYPES or raw[3] == 0:
        raise DataError(
            f"{path} is not an IDX file: it begins with {raw[:4].hex(' ') or 'nothing'}, where 00 00, a type byte "
            f"among {', '.join(f'{code:02x}' for code in _IDX_DTYPES)} and a rank above 0 are needed; {_AGAIN}"
        )
    dtype, rank = np.dtype(_IDX_DTYPES[raw[2]]), raw[3]
    start = 4 + 4 * rank
    if len(raw) < start:
        raise DataError(f"{path} ends inside its header, after {len(raw)} of {start} bytes; {_AGAIN}")
    shape = np.frombuffer(raw, ">u4", count=rank, offset=4).tolist()
    expected = math.prod(shape) * dtype.itemsize  # Python integers: a corrupt header must not wrap around
    if len(raw) - start != expected:
        raise DataError(
            f"{path} holds {len(raw) - start} bytes of data, its header says {' x '.join(map(str, shape))} of "
            f"{dtype.itemsize} bytes = {expected}; {_AGAIN}"
        )
    array = np.frombuffer(raw, dtype, offset=start).astype(dtype.newbyteorder("="), copy=True)
    return torch.from_numpy(array.reshape(shape))


def read_idx_pair(images: str | Path, labels: str | Path, num_classes: int = 10) -> tuple[Tensor, Tensor]:
    """Read a file of images and its file of labels, both IDX: MNIST, Fashion-MNIST, KMNIST, EMNIST.

    Args:
        images: path of the file of images, uint8, (N, Y, X) or (N, C, Y, X).
        labels: path of the file of labels, integers (N,).
        num_classes: number of classes; labels are in 0 to ``num_classes`` - 1.

    Returns:
        Images uint8 (N, C, Y, X) and labels int64 (N,).

    Raises:
        DataError: if a file is not a valid IDX file or has another type or shape, the counts differ, or a label is out
            of range.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pixels, digits = Path(folder, "images"), Path(folder, "labels")
        ...     _ = pixels.write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 9, 8, 7, 6]))
        ...     _ = digits.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 5]))
        ...     [part.tolist() for part in read_idx_pair(pixels, digits)]
        [[[[[9, 8], [7, 6]]]], [5]]
    """
    pixels, numbers = read_idx(images), read_idx(labels)
    if pixels.dtype != torch.uint8 or pixels.dim() not in (3, 4):
        raise DataError(
            f"{images} holds {pixels.dtype} of shape {tuple(pixels.shape)}, where uint8 images (N, Y, X) or "
            "(N, C, Y, X) are needed; check that it is the file of the images"
        )
    if numbers.is_floating_point():
        raise DataError(f"{labels} holds {numbers.dtype}, where whole numbers are needed; is it the file of labels?")
    pixels = pixels.unsqueeze(1) if pixels.dim() == 3 else pixels
    _check_labels(f"{images} with {labels}", numbers.long(), len(pixels), num_classes)
    return pixels, numbers.long()


class _PickledDtype:
    """Replacement of ``numpy.dtype`` in pickles: a type code and its byte order."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else code
        self.order = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self.order = order.decode("ascii") if isinstance(order, bytes) else order


class _PickledArray:
    """Replacement of ``numpy.ndarray`` in pickles: integers from bytes."""

    values: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, column_major, raw = state
        if not re.fullmatch(r"[iu][1248]", dtype.code):
            raise pickle.UnpicklingError(f"an array of type {dtype.code!r}, where whole numbers are needed")
        flat = np.frombuffer(raw, np.dtype(dtype.code).newbyteorder(dtype.order))
        self.values = flat.reshape(shape, order="F" if column_major else "C")


class _PlainUnpickler(pickle.Unpickler):
    """Unpickler for containers, numbers, strings and arrays of integers; no other name is imported.

    Numpy's own functions are not used either: the names in a pickled array resolve to the classes above, so that a file
    can only call code that was written to read it.
    """

    def find_class(self, module: str, name: str) -> Any:
        # functions are made anew for each request: a pickle can write attributes of what it is given
        def reconstruct(*_: Any) -> _PickledArray:
            return _PickledArray()

        def from_buffer(raw: bytes, dtype: _PickledDtype, shape: tuple[int, ...], order: str) -> _PickledArray:
            array = _PickledArray()  # as protocol 5 writes one
            array.__setstate__((1, shape, dtype, order == "F", raw))
            return array

        def encode(text: str, encoding: str) -> bytes:  # how protocol 2 of Python 3 writes bytes
            if encoding not in ("latin1", "latin-1"):
                raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
            return text.encode("latin1")

        allowed: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy", "dtype"): _PickledDtype,
            ("numpy", "ndarray"): _PickledArray,
            ("numpy.core.multiarray", "_reconstruct"): reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): reconstruct,
            ("numpy.core.numeric", "_frombuffer"): from_buffer,
            ("numpy._core.numeric", "_frombuffer"): from_buffer,
            ("_codecs", "encode"): encode,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which no CIFAR batch needs")
        return allowed[module, name]


def _plain(value: Any) -> Any:
    return value.values if isinstance(value, _PickledArray) else value


def _read_cifar_batch(path: Path, field: str | None) -> tuple[np.ndarray, np.ndarray, str]:
    raw = _read_bytes(path)
    try:
        # the unpickler makes room for as many objects as a number in the file says: a corrupt one fills the memory
        for opcode, argument, _ in pickletools.genops(raw):
            if opcode.name.endswith("PUT") and (argument or 0) > len(raw):
                raise pickle.UnpicklingError(f"it numbers an object {argument} in {len(raw)} bytes")
        content = _PlainUnpickler(io.BytesIO(raw), encoding="bytes").load()
    except Exception as error:  # a corrupt pickle may raise anything, as the documentation of pickle says
        raise DataError(
            f"{path} was refused as a CIFAR batch: {error or type(error).__name__}. It is truncated, corrupt or of "
            "another kind; take the files of the archive 'CIFAR-10 python version' as they are"
        ) from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, where the dictionary of a CIFAR batch is needed")
    # keys are bytes when Python 2 wrote the file, as it did the published ones, and text otherwise
    content = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    found = [name for name in _CIFAR_CLASSES if name in content and field in (None, name)]
    pixels = _plain(content.get("data"))
    pixels = pixels if isinstance(pixels, np.ndarray) else None
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3072 or not found:
        what = "nothing" if pixels is None else f"{pixels.dtype} of shape {pixels.shape}"
        raise DataError(
            f"{path} has the fields {', '.join(map(str, content))} with {what} in 'data', where uint8 (N, 3072) in "
            f"'data' and {field or ' or '.join(_CIFAR_CLASSES)} are needed; give the files of batches, not "
            "batches.meta, and a label field that they have"
        )
    try:
        numbers = np.asarray(_plain(content[found[0]]))
    except ValueError:  # nested lists of unequal lengths
        numbers = np.empty(0, object)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise DataError(f"{path} has {found[0]!r} that are not a list of whole numbers; {_AGAIN}")
    return pixels, numbers.astype(np.int64), found[0]


def read_cifar_batches(
    paths: Sequence[str | Path], label_field: Literal["labels", "fine_labels", "coarse_labels"] | None = None
) -> tuple[Tensor, Tensor]:
    """Read the Python version of CIFAR-10 or CIFAR-100, which are pickles, without running code from them.

    Only containers, numbers, strings and arrays of integers are built; a file with any other name is refused, so that
    files from untrusted sources cannot run code.

    Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.

    Args:
        paths: paths of the files in the order in which they are concatenated: ``data_batch_1`` to ``data_batch_5``, or
            ``test_batch``; for CIFAR-100 ``train`` or ``test``.
        label_field: ``labels`` (CIFAR-10), ``fine_labels`` (100 classes) or ``coarse_labels`` (20 classes); None
            for the first of them that the files have.

    Returns:
        Images uint8 (N, 3, 32, 32), red, green, blue, and labels int64 (N,).

    Raises:
        DataError: if a file is missing, truncated, not a CIFAR batch, has a name that is not allowed, or
            labels out of range; if the files have different kinds of labels; if no file is given.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "data_batch_1")
        ...     batch = {"data": np.zeros((2, 3072), np.uint8), "labels": [3, 9]}
        ...     _ = path.write_bytes(pickle.dumps(batch, protocol=2))
        ...     images, labels = read_cifar_batches([path])
        >>> images.shape, labels
        (torch.Size([2, 3, 32, 32]), tensor([3, 9]))
    """
    if label_field is not None and label_field not in _CIFAR_CLASSES:
        raise ValueError(f"label_field is {label_field!r}; give one of {', '.join(_CIFAR_CLASSES)}, or None")
    if isinstance(paths, str | Path) or not paths:
        raise DataError(f"paths is {paths!r}; give a list of at least one file, such as ['test_batch']")
    parts = [_read_cifar_batch(Path(path), label_field) for path in paths]
    fields = sorted({field for _, _, field in parts})
    if len(fields) > 1:
        raise DataError(f"the files have different labels, {' and '.join(fields)}; do not mix CIFAR-10 and CIFAR-100")
    for path, (pixels, numbers, field) in zip(paths, parts, strict=True):
        _check_labels(str(path), torch.from_numpy(numbers), len(pixels), _CIFAR_CLASSES[field])
    images = np.concatenate([pixels for pixels, _, _ in parts]).reshape(-1, 3, 32, 32)
    return torch.from_numpy(images), torch.from_numpy(np.concatenate([numbers for _, numbers, _ in parts]))


def _read_jpeg_members(path: Path, classes: Sequence[str]) -> list[tuple[str, int, bytes]]:
    indices = {name: index for index, name in enumerate(classes)}
    members = []
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if not member.isfile() or not member.name.lower().endswith((".jpg", ".jpeg")):
                    continue
                parts = [part for part in member.name.split("/") if part != "."]
                if len(parts) != 3 or parts[1] not in indices:
                    raise DataError(
                        f"{path} has the member {member.name}, where SPLIT/CLASS/NAME.jpg with a class among "
                        f"{', '.join(classes)} is needed; give the classes as the archive spells them"
                    )
                content = archive.extractfile(member)
                members.append((member.name, indices[parts[1]], content.read() if content else b""))
            # tarfile takes a damaged header and a missing end for the end of the archive, without a word; it has
            # read one of the two or more blocks of zeros that an archive ends with
            rest = archive.fileobj.read(1 << 20) if archive.fileobj else b""
    except (EOFError, OSError, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path} is missing, truncated, corrupt or no tar archive ({error}); {_AGAIN}") from error
    if not rest or rest.strip(b"\0"):
        raise DataError(f"{path} has no end of archive after {len(members)} images: truncated or corrupt; {_AGAIN}")
    if not members:
        raise DataError(f"{path} has no .jpg members; give an archive of SPLIT/CLASS/NAME.jpg")
    return sorted(members)


def read_jpeg_archive(path: str | Path, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Read a tar archive, also compressed, of JPEG images in folders named by class, without unpacking it.

    The images are in the order of their names, class after class: shuffle them. Decoding is done in memory;
    a progress bar is shown when standard error is a terminal.

    Args:
        path: path of the archive, ``.tar``, ``.tar.xz``, ``.tar.gz`` or ``.tar.bz2``, with members
            ``SPLIT/CLASS/NAME.jpg``.
        classes: names of the folders; the position in this list is the label.

    Returns:
        Images uint8 (N, 3, Y, X), red, green, blue (grey images have three equal channels), and labels int64 (N,).

    Raises:
        DataError: if the archive is missing, truncated, empty or not an archive, a class is not listed, an image cannot
            be decoded, or the images differ in size.
        OptionalDependencyError: if Pillow is not installed.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path, picture = Path(folder, "pets.tar.xz"), io.BytesIO()
        ...     Image.new("RGB", (8, 6)).save(picture, "JPEG")
        ...     with tarfile.open(path, "w:xz") as archive:
        ...         member = tarfile.TarInfo("train/dog/0001.jpg")
        ...         member.size = picture.tell()
        ...         archive.addfile(member, io.BytesIO(picture.getvalue()))
        ...     images, labels = read_jpeg_archive(path, ["cat", "dog"])
        >>> images.shape, labels
        (torch.Size([1, 3, 6, 8]), tensor([1]))
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise OptionalDependencyError("pillow", "reading JPEG images", extra="images") from error
    path = Path(path)
    if isinstance(classes, str) or not classes or len(set(classes)) != len(classes):
        raise ValueError(f"classes is {classes!r}; give a list of at least one name, each once")
    members = _read_jpeg_members(path, classes)
    pixels = np.empty((0, 0, 0, 3), np.uint8)
    rows = track(
        enumerate(members), path.name, len(members), console=Console(stderr=True), disable=not sys.stderr.isatty()
    )
    for row, (name, _, raw) in rows:
        try:
            with Image.open(io.BytesIO(raw), formats=("JPEG",)) as picture:
                if row == 0:
                    pixels = np.empty((len(members), picture.height, picture.width, 3), np.uint8)
                size = (picture.height, picture.width)
                if size == pixels.shape[1:3]:
                    pixels[row] = np.asarray(picture.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: the member {name} is no readable JPEG image ({error}); {_AGAIN}") from error
        if size != pixels.shape[1:3]:
            raise DataError(
                f"{path}: the member {name} is {size[0]} x {size[1]}, the first image {pixels.shape[1]} x "
                f"{pixels.shape[2]}; scale the images to one size first"
            )
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor([label for _, label, _ in members])


def read_usps_hdf5(path: str | Path, split: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
    """Read the USPS digits, 16 x 16, from HDF5 with a group for each split that has ``data`` and ``target``.

    The file holds grey levels in [0, 1] in steps of 0.0005; they are rounded to 256 levels, with an error of
    at most 1/510.

    Source: J. Hull, "A database for handwritten text recognition research", IEEE TPAMI 16(5), 1994.

    Args:
        path: path of the file; ``data`` is (N, 256) or (N, 16, 16), ``target`` (N,).
        split: name of the split, ``train`` (7,291 images in the published file) or ``test`` (2,007).

    Returns:
        Images uint8 (N, 1, 16, 16) and labels int64 (N,).

    Raises:
        DataError: if the file is missing, truncated or not HDF5, lacks a field, holds another shape or values
            outside [0, 1], or has labels out of range.
        OptionalDependencyError: if h5py is not installed.

    Example:
        >>> import tempfile, h5py
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "usps.h5")
        ...     with h5py.File(path, "w") as file:
        ...         file["test/data"], file["test/target"] = np.ones((2, 256), np.float32), [4, 0]
        ...     images, labels = read_usps_hdf5(path, "test")
        >>> images.shape, images.max(), labels
        (torch.Size([2, 1, 16, 16]), tensor(255, dtype=torch.uint8), tensor([4, 0]))
    """
    try:
        import h5py
    except ImportError as error:
        raise OptionalDependencyError("h5py", "reading USPS", extra="images") from error
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}; give 'train' or 'test'")
    try:
        with h5py.File(path, "r") as file:
            values, targets = np.asarray(file[f"{split}/data"]), np.asarray(file[f"{split}/target"])
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is missing, truncated, not HDF5 or without {split}/data and {split}/target ({error}); {_AGAIN}"
        ) from error
    if values.dtype.kind != "f" or values.shape[1:] not in ((256,), (16, 16)) or targets.dtype.kind not in "iu":
        raise DataError(
            f"{path} holds {values.dtype} {values.shape} and {targets.dtype} {targets.shape} under {split}, where "
            "real numbers (N, 256) and whole numbers (N,) are needed; check that it is the USPS file"
        )
    if len(values) and not (values.min() >= 0 and values.max() <= 1):  # false for nan as well
        raise DataError(
            f"{path} holds grey levels from {values.min()} to {values.max()}, outside [0, 1]; "
            "scale them first: a file with -1 .. 1 needs (x + 1) / 2"
        )
    images = torch.from_numpy(np.rint(values * 255).astype(np.uint8).reshape(-1, 1, 16, 16))
    labels = torch.from_numpy(targets.astype(np.int64))
    _check_labels(f"{path} ({split})", labels, len(images), 10)
    return images, labels
