import gzip
import io
import os
import pickle
import re
import struct
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.core import DataError, OptionalDependencyError
from graphseq.data import read_cifar_batches, read_idx, read_idx_pair, read_jpeg_archive, read_usps_hdf5

h5py = pytest.importorskip("h5py", reason="h5py is not installed (extra images)")
Image = pytest.importorskip("PIL.Image", reason="pillow is not installed (extra images)")

CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, CODES[array.dtype.str[1:]], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


class TestIdx:
    @settings(max_examples=30, deadline=None)
    @given(
        code=st.sampled_from(sorted(CODES)),
        shape=st.lists(st.integers(0, 4), min_size=1, max_size=4),
        packed=st.booleans(),
        seed=st.integers(0, 99),
    )
    def test_returns_what_was_written(self, tmp_path_factory, code, shape, packed, seed):
        array = np.random.default_rng(seed).integers(-100, 100, shape).astype(code)
        raw = idx_bytes(array)
        path = tmp_path_factory.mktemp("idx") / "file"
        path.write_bytes(gzip.compress(raw) if packed else raw)
        read = read_idx(path)
        assert read.dtype == torch.from_numpy(array).dtype
        assert torch.equal(read, torch.from_numpy(array))

    def test_result_can_be_written(self, tmp_path):
        (tmp_path / "x").write_bytes(idx_bytes(np.zeros(3, "u1")))
        read_idx(tmp_path / "x").add_(1)

    def test_wrong_magic(self, tmp_path):
        (tmp_path / "x").write_bytes(b"\x01\x00\x08\x01" + bytes(8))
        with pytest.raises(DataError, match="x is .*IDX.* 01 00 08 01"):
            read_idx(tmp_path / "x")

    @pytest.mark.parametrize("raw", [b"", b"\0\0", b"\0\0\x07\x01\0\0\0\0", b"\0\0\x08\0"])
    def test_no_header(self, tmp_path, raw):
        (tmp_path / "x").write_bytes(raw)
        with pytest.raises(DataError, match="x is .*IDX.* begins"):
            read_idx(tmp_path / "x")

    def test_every_truncation_is_noticed(self, tmp_path):
        raw = idx_bytes(np.arange(12, dtype="u1").reshape(3, 2, 2))
        path = tmp_path / "x"
        for length in range(len(raw)):
            path.write_bytes(raw[:length])
            with pytest.raises(DataError, match="x "):
                read_idx(path)
        path.write_bytes(raw + b"\0")
        with pytest.raises(DataError, match="x holds 13 bytes.*3 x 2 x 2.*12"):
            read_idx(path)

    def test_every_truncation_of_gzip_is_noticed(self, tmp_path):
        raw = gzip.compress(idx_bytes(np.arange(200, dtype="u1")))
        path = tmp_path / "x.gz"
        for length in range(2, len(raw)):
            path.write_bytes(raw[:length])
            with pytest.raises(DataError, match=r"x\.gz is .*gzip"):
                read_idx(path)

    def test_corrupt_gzip(self, tmp_path):
        raw = bytearray(gzip.compress(idx_bytes(np.arange(200, dtype="u1"))))
        raw[-6] ^= 0xFF  # in the checksum
        (tmp_path / "x.gz").write_bytes(raw)
        with pytest.raises(DataError, match="corrupt gzip"):
            read_idx(tmp_path / "x.gz")

    def test_huge_header_allocates_nothing(self, tmp_path):
        # the product of the four is 2 ** 128, which is 0 in 64 bits
        (tmp_path / "x").write_bytes(b"\0\0\x08\x04" + b"\x80\0\0\0" * 4)
        with pytest.raises(DataError, match="2147483648 x 2147483648"):
            read_idx(tmp_path / "x")

    def test_missing_file_and_folder(self, tmp_path):
        for path in (tmp_path / "none", tmp_path):
            with pytest.raises(DataError, match=re.escape(f"{path} cannot")):
                read_idx(path)

    def write_pair(self, folder: Path, images: np.ndarray, labels: np.ndarray) -> tuple[Path, Path]:
        (folder / "images").write_bytes(idx_bytes(images))
        (folder / "labels").write_bytes(idx_bytes(labels))
        return folder / "images", folder / "labels"

    def test_pair(self, tmp_path):
        pixels = np.arange(24, dtype="u1").reshape(2, 3, 4)
        images, labels = read_idx_pair(*self.write_pair(tmp_path, pixels, np.array([9, 0], "u1")))
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert images.tolist() == pixels[:, None].tolist()
        assert labels.tolist() == [9, 0]

    def test_pair_of_colour_images(self, tmp_path):
        pixels = np.zeros((2, 3, 4, 4), "u1")
        assert read_idx_pair(*self.write_pair(tmp_path, pixels, np.zeros(2, "u1")))[0].shape == (2, 3, 4, 4)

    @pytest.mark.parametrize(
        ("images", "labels", "message"),
        [
            (np.zeros((2, 3, 3), "u1"), np.zeros(3, "u1"), r"labels.*\(3,\).*2 images"),
            (np.zeros((2, 3, 3), "u1"), np.array([3, 10], "u1"), r"labels from 3 to 10, .*0\.\.9"),
            (np.zeros((2, 3, 3), "u1"), np.array([-1, 1], "i1"), r"labels from -1 to 1, .*0\.\.9"),
            (np.zeros((2, 3, 3), "f4"), np.zeros(2, "u1"), r"torch\.float32 of shape \(2, 3, 3\)"),
            (np.zeros((2, 3), "u1"), np.zeros(2, "u1"), r"torch\.uint8 of shape \(2, 3\)"),
            (np.zeros((2, 3, 3), "u1"), np.zeros(2, "f4"), r"labels holds torch\.float32"),
        ],
    )
    def test_pair_that_does_not_fit(self, tmp_path, images, labels, message):
        with pytest.raises(DataError, match=message):
            read_idx_pair(*self.write_pair(tmp_path, images, labels))

    def test_more_classes(self, tmp_path):
        paths = self.write_pair(tmp_path, np.zeros((1, 2, 2), "u1"), np.array([46], "u1"))
        assert read_idx_pair(*paths, num_classes=47)[1].item() == 46


def python2_batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    """The opcodes that Python 2 with numpy wrote: byte strings, protocol 2, names of old numpy."""
    text = lambda value: b"U" + bytes([len(value)]) + value  # noqa: E731
    raw = pixels.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    dtype = (
        b"cnumpy\ndtype\n"
        + text(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    shape = b"".join(b"M" + struct.pack("<H", size) for size in pixels.shape) + b"\x86"
    array += b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return (
        b"\x80\x02}("
        + text(b"batch_label") + text(b"training batch 1 of 5")
        + text(b"labels") + numbers
        + text(b"data") + array
        + text(b"filenames") + b"](" + b"".join(text(b"a.png") for _ in labels) + b"e"
        + b"u."
    )  # fmt: skip


class TestCifar:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3072), np.uint8)

    def write(self, folder: Path, content: object, protocol: int = 2, name: str = "batch") -> Path:
        (folder / name).write_bytes(pickle.dumps(content, protocol=protocol))
        return folder / name

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    @pytest.mark.parametrize("as_bytes", [True, False])
    def test_equals_plain_pickle(self, tmp_path, protocol, as_bytes):
        content = {"data": self.pixels, "labels": [3, 0, 9], "batch_label": "x"}
        content = {key.encode() if as_bytes else key: value for key, value in content.items()}
        images, labels = read_cifar_batches([self.write(tmp_path, content, protocol)])
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert labels.tolist() == [3, 0, 9]
        # red plane, then green, then blue, each in rows: written out for some pixels
        assert images.shape == (3, 3, 32, 32)
        for n, c, y, x in ((0, 0, 0, 0), (1, 2, 31, 5), (2, 1, 7, 30)):
            assert images[n, c, y, x] == self.pixels[n, c * 1024 + y * 32 + x]

    def test_file_as_python2_wrote_it(self, tmp_path):
        path = tmp_path / "data_batch_1"
        path.write_bytes(python2_batch(self.pixels, [1, 2, 3]))
        assert set(pickle.loads(path.read_bytes(), encoding="bytes")) == {
            b"batch_label",
            b"labels",
            b"data",
            b"filenames",
        }
        images, labels = read_cifar_batches([path])
        assert np.array_equal(images.flatten(1).numpy(), self.pixels)
        assert labels.tolist() == [1, 2, 3]

    def test_files_are_joined_in_order(self, tmp_path):
        first = self.write(tmp_path, {"data": self.pixels, "labels": [1, 2, 3]}, name="a")
        second = self.write(tmp_path, {"data": self.pixels[:1], "labels": np.array([7])}, name="b")
        images, labels = read_cifar_batches([second, first])
        assert labels.tolist() == [7, 1, 2, 3]
        assert torch.equal(images[0], images[1])

    def test_column_major_array(self, tmp_path):
        path = self.write(tmp_path, {"data": np.asfortranarray(self.pixels), "labels": [1, 2, 3]})
        assert np.array_equal(read_cifar_batches([path])[0].flatten(1).numpy(), self.pixels)

    def test_labels_of_cifar100(self, tmp_path):
        path = self.write(tmp_path, {"data": self.pixels, "fine_labels": [99, 0, 5], "coarse_labels": [19, 0, 1]})
        assert read_cifar_batches([path])[1].tolist() == [99, 0, 5]
        assert read_cifar_batches([path], "coarse_labels")[1].tolist() == [19, 0, 1]
        with pytest.raises(DataError, match="fine_labels.*batches.meta"):
            read_cifar_batches([path], "labels")
        other = self.write(tmp_path, {"data": self.pixels, "labels": [1, 2, 3]}, name="other")
        with pytest.raises(DataError, match="fine_labels and labels.*CIFAR-100"):
            read_cifar_batches([path, other])

    def test_malicious_pickle_runs_nothing(self, tmp_path):
        touched = tmp_path / "touched"

        class Evil:
            def __reduce__(self):
                return os.system, (f"touch {touched}",)

        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            path = self.write(tmp_path, {"data": self.pixels, "labels": Evil()}, protocol)
            with pytest.raises(DataError, match=r"CIFAR.* \w+\.system"):
                read_cifar_batches([path])
        assert not touched.exists()
        pickle.loads(path.read_bytes())  # the file does run code where nothing stops it
        assert touched.exists()

    @pytest.mark.parametrize(
        "name",
        [
            "builtins\neval", "builtins\ngetattr", "numpy\nload", "numpy.core.multiarray\nfromfile",
            "copyreg\n_reconstructor", "numpy.testing\nrundocs", "_codecs\ndecode", "graphseq.data.images.files\nPath",
        ],
    )  # fmt: skip
    def test_no_other_name(self, tmp_path, name):
        (tmp_path / "x").write_bytes(b"c" + name.encode() + b"\n.")
        with pytest.raises(DataError, match="for " + re.escape(name.replace("\n", "."))):
            read_cifar_batches([tmp_path / "x"])

    def test_dotted_name_reaches_nothing(self, tmp_path):
        # STACK_GLOBAL of protocol 4 takes names with dots, which lead from an allowed class to anything
        (tmp_path / "x").write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x16ndarray.__init__.__doc__"[:-2] + b"\x93.")
        with pytest.raises(DataError, match="refused"):
            read_cifar_batches([tmp_path / "x"])
        (tmp_path / "x").write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.")
        with pytest.raises(DataError, match=r"numpy\.ndarray\.__init__"):
            read_cifar_batches([tmp_path / "x"])

    def test_odd_encoding_is_refused(self, tmp_path):
        (tmp_path / "x").write_bytes(b"c_codecs\nencode\nX\x01\0\0\0aX\x05\0\0\0rot13\x86R.")
        with pytest.raises(DataError, match="rot13"):
            read_cifar_batches([tmp_path / "x"])

    def test_huge_number_of_an_object_allocates_nothing(self, tmp_path):
        (tmp_path / "x").write_bytes(b"\x80\x02Nr\x00\x00\x00\x20.")  # LONG_BINPUT 2 ** 29: 8 GB in pickle
        with pytest.raises(DataError, match="object 536870912 in 9 bytes"):
            read_cifar_batches([tmp_path / "x"])

    def test_every_truncation_is_noticed(self, tmp_path):
        raw = pickle.dumps({"data": self.pixels[:1], "labels": [1]}, protocol=2)
        path = tmp_path / "x"
        for length in [*range(0, len(raw), 97), len(raw) - 1]:
            path.write_bytes(raw[:length])
            with pytest.raises(DataError, match="x was refused"):
                read_cifar_batches([path])

    @settings(max_examples=200, deadline=None)
    @given(position=st.integers(0, 10_000), value=st.integers(0, 255))
    def test_damage_gives_no_other_error(self, tmp_path_factory, position, value):
        raw = bytearray(pickle.dumps({"data": self.pixels[:1], "labels": [1]}, protocol=2))
        # outside the pixels, where a changed byte is only another pixel
        skeleton = [p for p in range(len(raw)) if p < 120 or p > len(raw) - 60]
        raw[skeleton[position % len(skeleton)]] = value
        path = tmp_path_factory.getbasetemp() / "damaged"
        path.write_bytes(raw)
        try:
            images, labels = read_cifar_batches([path])
        except DataError:
            return
        assert images.shape[1:] == (3, 32, 32)
        assert 0 <= int(labels.min()) <= int(labels.max()) < 100

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ([1, 2], "batch holds a list"),
            ({"labels": [1]}, "labels .*nothing in 'data'"),
            ({"data": {"values": 1}, "labels": [1]}, "labels .*nothing in 'data'"),
            ({"data": pixels[:, :100], "labels": [1, 2, 3]}, r"uint8 of shape \(3, 100\)"),
            ({"data": pixels.astype(np.int64), "labels": [1, 2, 3]}, r"int64 of shape \(3, 3072\)"),
            ({"data": pixels}, "fields data with uint8.*coarse_labels"),
            ({"data": pixels, "labels": [1, 2]}, r"labels.*\(2,\).*3 images"),
            ({"data": pixels, "labels": [1, 2, 10]}, r"labels from 1 to 10, .*0\.\.9"),
            ({"data": pixels, "labels": ["1", "2", "3"]}, "has 'labels' "),
            ({"data": pixels, "labels": [[1], [2, 3], 4]}, "has 'labels' "),
            ({"data": pixels, "labels": [0.5, 1, 2]}, "has 'labels' "),
            ({"data": pixels, "labels": [2**70, 1, 2]}, "has 'labels' "),
            ({"data": pixels.astype(np.float32), "labels": [1, 2, 3]}, "type 'f4'"),
            ({"data": np.array([None]), "labels": [1]}, "type 'O8'"),
        ],
    )
    def test_wrong_content(self, tmp_path, content, message):
        with pytest.raises(DataError, match=message):
            read_cifar_batches([self.write(tmp_path, content)])

    def test_wrong_arguments(self, tmp_path):
        with pytest.raises(DataError, match=r"paths is \[\]"):
            read_cifar_batches([])
        with pytest.raises(DataError, match="paths is 'test_batch'"):
            read_cifar_batches("test_batch")
        with pytest.raises(DataError, match="none cannot"):
            read_cifar_batches([tmp_path / "none"])
        with pytest.raises(ValueError, match="label_field is 'label'"):
            read_cifar_batches([tmp_path], "label")


def jpeg(colour: tuple[int, int, int] | int, size: tuple[int, int] = (8, 8)) -> bytes:
    picture = io.BytesIO()
    Image.new("RGB" if isinstance(colour, tuple) else "L", size, colour).save(picture, "JPEG", quality=100)
    return picture.getvalue()


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w:xz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


class TestJpegArchive:
    members = {  # noqa: RUF012
        "train/dog/0002.jpg": jpeg((255, 0, 0)),
        "train/README.txt": b"not an image",
        "train/dog/0001.jpg": jpeg((0, 255, 0)),
        "train/cat/0001.jpg": jpeg((0, 0, 255)),
        "train/cat/0002.JPEG": jpeg(77),
    }

    @pytest.mark.parametrize(
        ("suffix", "mode"), [("tar", "w"), ("tar.xz", "w:xz"), ("tar.gz", "w:gz"), ("tar.bz2", "w:bz2")]
    )
    def test_sorted_and_labelled(self, tmp_path, suffix, mode):
        path = write_tar(tmp_path / f"pets.{suffix}", self.members, mode)
        images, labels = read_jpeg_archive(path, ["dog", "cat"])
        assert images.shape == (4, 3, 8, 8)
        assert images.dtype == torch.uint8
        assert images.is_contiguous()
        assert labels.dtype == torch.int64
        assert labels.tolist() == [1, 1, 0, 0]
        expected = torch.tensor([[0, 0, 255], [77, 77, 77], [0, 255, 0], [255, 0, 0]])
        assert (images.float().mean((2, 3)) - expected).abs().max() < 3  # lossy

    def test_rows_and_columns_stay(self, tmp_path):
        pixels = np.repeat(np.arange(16, dtype=np.uint8)[:, None] * 16, 24, 1)
        picture = io.BytesIO()
        Image.fromarray(pixels).save(picture, "JPEG", quality=100)
        images, _ = read_jpeg_archive(write_tar(tmp_path / "x.tar.xz", {"a/b/c.jpg": picture.getvalue()}), ["b"])
        assert images.shape == (1, 3, 16, 24)
        assert np.abs(images[0, 1].numpy().astype(int) - pixels).max() <= 3

    @pytest.mark.parametrize("mode", ["w", "w:xz", "w:gz"])
    def test_truncation_is_noticed(self, tmp_path, mode):
        raw = write_tar(tmp_path / "x.tar", self.members, mode).read_bytes()
        # an uncompressed archive is padded to 10240 bytes; its last 512 bytes may go without a loss
        content = max(raw.rfind(jpeg(77)[-20:]) + 20, 0) if mode == "w" else len(raw)
        blocks = range(512, content, 512) if mode == "w" else range(0, content, 50)
        for length in [0, 1, *blocks, content - 1]:
            (tmp_path / "cut.tar").write_bytes(raw[:length])
            with pytest.raises(DataError, match=r"cut\.tar"):
                read_jpeg_archive(tmp_path / "cut.tar", ["dog", "cat"])

    def test_damaged_header_in_the_middle(self, tmp_path):
        raw = bytearray(write_tar(tmp_path / "x.tar", self.members, "w").read_bytes())
        at = raw.index(b"train/dog/0001.jpg")
        raw[at : at + 5] = b"XXXXX"  # the checksum of the header does not fit: tarfile stops here, silently
        (tmp_path / "x.tar").write_bytes(raw)
        with pytest.raises(DataError, match=r"x\.tar .*archive.* 1 images"):
            read_jpeg_archive(tmp_path / "x.tar", ["dog", "cat"])

    @pytest.mark.parametrize(
        ("members", "message"),
        [
            ({"train/cow/1.jpg": jpeg(0)}, r"train/cow/1\.jpg, .*SPLIT/CLASS/NAME\.jpg"),
            ({"cat/1.jpg": jpeg(0)}, r"member cat/1\.jpg, .*SPLIT/CLASS/NAME\.jpg"),
            ({"notes.txt": b""}, "no .jpg members"),
            ({"a/cat/1.jpg": b"GIF89a"}, r"a/cat/1\.jpg .*JPEG"),
            ({"a/cat/1.jpg": jpeg((9, 9, 9), (64, 64))[:500]}, r"a/cat/1\.jpg .*JPEG"),
            ({"a/cat/1.jpg": jpeg(0), "a/cat/2.jpg": jpeg(0, (8, 9))}, r"2\.jpg is 9 x 8, .*8 x 8"),
        ],
    )
    def test_wrong_content(self, tmp_path, members, message):
        with pytest.raises(DataError, match=message):
            read_jpeg_archive(write_tar(tmp_path / "x.tar.xz", members), ["cat", "dog"])

    def test_another_format_is_not_taken_for_jpeg(self, tmp_path):
        picture = io.BytesIO()
        Image.new("RGB", (8, 8)).save(picture, "PNG")
        with pytest.raises(DataError, match="no readable JPEG"):
            read_jpeg_archive(write_tar(tmp_path / "x.tar", {"a/cat/1.jpg": picture.getvalue()}, "w"), ["cat"])

    def test_no_archive(self, tmp_path):
        (tmp_path / "x.tar").write_bytes(b"no archive at all" * 100)
        for name in ("x.tar", "none.tar"):
            with pytest.raises(DataError, match=f"{name} is missing"):
                read_jpeg_archive(tmp_path / name, ["cat"])

    @pytest.mark.parametrize("classes", [[], ["cat", "cat"], "cat"])
    def test_wrong_classes(self, tmp_path, classes):
        with pytest.raises(ValueError, match="^classes is "):
            read_jpeg_archive(tmp_path / "x.tar", classes)

    def test_bar_only_in_a_terminal(self, tmp_path, capsys, monkeypatch):
        path = write_tar(tmp_path / "pets.tar", self.members, "w")
        read_jpeg_archive(path, ["dog", "cat"])
        captured = capsys.readouterr()
        assert captured.out == captured.err == ""
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        read_jpeg_archive(path, ["dog", "cat"])
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "pets.tar" in captured.err

    def test_without_pillow(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "PIL", None)
        with pytest.raises(OptionalDependencyError, match=r"JPEG.*pillow.*graphseq\[images\]"):
            read_jpeg_archive(tmp_path / "x.tar", ["cat"])


class TestUsps:
    def write(self, path: Path, data: np.ndarray, target: np.ndarray, split: str = "train") -> Path:
        with h5py.File(path, "w") as file:
            file[f"{split}/data"] = data
            file[f"{split}/target"] = target
        return path

    @pytest.mark.parametrize("shape", [(3, 256), (3, 16, 16)])
    def test_levels_and_layout(self, tmp_path, shape):
        values = np.random.default_rng(0).random(shape).astype(np.float32)
        path = self.write(tmp_path / "usps.h5", values, np.array([3, 9, 0], np.int32))
        images, labels = read_usps_hdf5(path, "train")
        assert images.shape == (3, 1, 16, 16)
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert labels.tolist() == [3, 9, 0]
        assert np.abs(images.numpy().reshape(shape) / 255 - values).max() <= 1 / 510 + 1e-7

    @pytest.mark.parametrize(
        ("data", "target", "message"),
        [
            (np.zeros((2, 256), "f4"), np.zeros(3, "i4"), r"labels.*\(3,\).*2 images"),
            (np.zeros((2, 256), "f4"), np.array([0, 10]), r"labels from 0 to 10, .*0\.\.9"),
            (np.full((2, 256), -1.0, "f4"), np.zeros(2, "i4"), "levels from -1.0"),
            (np.full((2, 256), np.nan, "f4"), np.zeros(2, "i4"), "levels from nan"),
            (np.zeros((2, 784), "f4"), np.zeros(2, "i4"), r"float32 \(2, 784\)"),
            (np.zeros((2, 256), "u1"), np.zeros(2, "i4"), r"uint8 \(2, 256\)"),
            (np.zeros((2, 256), "f4"), np.zeros(2, "f4"), r"float32 \(2,\) under train"),
        ],
    )
    def test_wrong_content(self, tmp_path, data, target, message):
        with pytest.raises(DataError, match=message):
            read_usps_hdf5(self.write(tmp_path / "usps.h5", data, target), "train")

    def test_missing_split_truncated_and_no_hdf5(self, tmp_path):
        path = self.write(tmp_path / "usps.h5", np.zeros((2, 256), "f4"), np.zeros(2, "i4"))
        message = r"usps\.h5 is missing, truncated, not HDF5 or without test/data"
        with pytest.raises(DataError, match=message):
            read_usps_hdf5(path, "test")
        raw = path.read_bytes()
        for content in (raw[: len(raw) // 2], b"", b"no HDF5"):
            path.write_bytes(content)
            with pytest.raises(DataError, match=message):
                read_usps_hdf5(path, "test")
        path.unlink()
        with pytest.raises(DataError, match=message):
            read_usps_hdf5(path, "test")
        with pytest.raises(ValueError, match="split is 'val'"):
            read_usps_hdf5(path, "val")

    def test_without_h5py(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "h5py", None)
        with pytest.raises(OptionalDependencyError, match=r"USPS.*h5py.*graphseq\[images\]"):
            read_usps_hdf5(tmp_path / "usps.h5", "train")


@pytest.mark.skipif(not os.environ.get("GRAPHSEQ_MIRROR"), reason="GRAPHSEQ_MIRROR names no folder of raw files")
class TestPublishedFiles:
    mirror = Path(os.environ.get("GRAPHSEQ_MIRROR", "."))

    def test_mnist(self):
        for split, size in (("train", 60_000), ("t10k", 10_000)):
            files = [self.mirror / "MNIST" / f"{split}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
            images, labels = read_idx_pair(*files)
            assert images.shape == (size, 1, 28, 28)
            assert len(labels) == size
        assert labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]

    def test_fashion_mnist(self):
        for split, size in (("t10k", 10_000), ("train", 60_000)):
            files = [
                self.mirror / "FashionMNIST" / f"{split}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")
            ]
            images, labels = read_idx_pair(*files)
            assert images.shape == (size, 1, 28, 28)
            assert labels.bincount().tolist() == [size // 10] * 10
        pixels = images.double() / 255
        assert pixels.mean().item() == pytest.approx(0.2860, abs=5e-5)
        assert pixels.std().item() == pytest.approx(0.3530, abs=5e-5)

    def test_usps(self):
        path = self.mirror / "USPS" / "usps.h5"
        images, labels = read_usps_hdf5(path, "train")
        assert images.shape == (7291, 1, 16, 16)
        assert labels.bincount().tolist() == [1194, 1005, 731, 658, 652, 556, 664, 645, 542, 644]
        images, labels = read_usps_hdf5(path, "test")
        assert images.shape == (2007, 1, 16, 16)
        assert labels.bincount().tolist() == [359, 264, 198, 166, 200, 160, 170, 147, 166, 177]

    def test_cifar10_test_split(self):
        images, labels = read_jpeg_archive(self.mirror / "CIFAR10_jpeg" / "cifar10_test_jpeg.tar.xz", CIFAR)
        assert images.shape == (10_000, 3, 32, 32)
        assert labels.bincount().tolist() == [1000] * 10
        pixels = images.double() / 255
        assert pixels.mean((0, 2, 3)).tolist() == pytest.approx([0.4941, 0.4851, 0.4504], abs=5e-5)
        assert pixels.std((0, 2, 3)).tolist() == pytest.approx([0.2448, 0.2422, 0.2606], abs=5e-5)

    @pytest.mark.slow
    def test_cifar10_train_split(self):
        images, labels = read_jpeg_archive(self.mirror / "CIFAR10_jpeg" / "cifar10_train_jpeg.tar.xz", CIFAR)
        assert images.shape == (50_000, 3, 32, 32)
        assert labels.bincount().tolist() == [5000] * 10
