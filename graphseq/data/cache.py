"""Cache of raw files from a mirror or the network, with checksums, and of processed data.

Nothing is ever written into the mirror. Files are written to the cache
atomically, so that a killed process or a full disk leaves no incomplete file.
"""

import hashlib
import os
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs
import torch

from graphseq.core.errors import DataError

__all__ = ["cache_folder", "cached", "checksum", "raw_files"]


def cache_folder() -> Path:
    """Return the folder for downloaded and processed data: ``GRAPHSEQ_CACHE``, else the user's cache folder.

    Example:
        >>> cache_folder().is_absolute()
        True
    """
    given = os.environ.get("GRAPHSEQ_CACHE")
    return Path(given).absolute() if given else Path(platformdirs.user_cache_dir("graphseq"))


def mirror_folder() -> Path | None:
    """Return the read-only folder with raw files that ``GRAPHSEQ_MIRROR`` names, or None if it is not set.

    Raises:
        DataError: if the variable names something that is not a folder.

    Example:
        >>> folder = mirror_folder()
    """
    given = os.environ.get("GRAPHSEQ_MIRROR")
    if not given:
        return None
    if not Path(given).is_dir():
        raise DataError(f"GRAPHSEQ_MIRROR is {given!r}, which is not a folder; unset it or name the mirror")
    return Path(given)


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file.

    Args:
        path: path of the file.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     checksum(Path(file.name))[:8]
        'e3b0c442'
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def complete_or_absent(path: Path) -> Iterator[Path]:
    """Context that yields a temporary path and renames it to ``path`` if the block ends without an exception.

    Args:
        path: final path of the file.

    Yields:
        the temporary path, in the same folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with complete_or_absent(Path(folder) / "a.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     (Path(folder) / "a.txt").read_text()
        'whole'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())  # the name must not reach the disk before the content
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _verify(path: Path, expected: str | None, origin: str) -> None:
    if expected is not None and (found := checksum(path)) != expected:
        raise DataError(
            f"{origin} has SHA-256 {found}, expected {expected}: the file is corrupt or another version. "
            "Replace it, or pass verify_checksums=False to use it as it is"
        )


# Not pooch: it would replace this function and the check of SHA-256 only. It reads no folder, so that copies from the
# mirror stay; it takes no members out of an archive one by one; and it does not sync a file before it is renamed.
def _download(address: str, target: Path) -> None:
    try:
        with urllib.request.urlopen(address, timeout=60) as reply, target.open("wb") as file:
            shutil.copyfileobj(reply, file)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise DataError(f"could not download {address}: {error}") from error


def _download_all(address: str, folder: Path, names: Sequence[str], expected: dict[str, str]) -> None:
    """Download one file, or a ZIP archive that holds all of them, into ``folder``."""
    with tempfile.TemporaryDirectory(prefix=".download.", dir=folder) as scratch:
        arrived = Path(scratch) / address.rsplit("/", 1)[-1]
        _download(address, arrived)
        if not address.endswith(".zip"):
            _verify(arrived, expected.get(names[0]), address)
            arrived.replace(folder / names[0])
            return
        try:
            with zipfile.ZipFile(arrived) as archive:
                inside = {member.rsplit("/", 1)[-1]: member for member in archive.namelist()}
                # required files last: if they exist, the optional ones are complete
                for name in (name for name in reversed(names) if name in inside):
                    with complete_or_absent(folder / name) as temporary, temporary.open("wb") as file:
                        shutil.copyfileobj(archive.open(inside[name]), file)
                        file.flush()
                        _verify(temporary, expected.get(name), f"{name} of {address}")
        except zipfile.BadZipFile as error:
            raise DataError(f"{address} is not a ZIP archive: {error}") from error


def raw_files(
    dataset: str,
    names: Sequence[str],
    *,
    optional: Sequence[str] = (),
    address: str | Callable[[str], str] | None = None,
    checksums: dict[str, str] | None = None,
) -> dict[str, Path]:
    """Return raw files of a data set in the cache, copied from the mirror or downloaded if they are missing.

    Args:
        dataset: folder of the data set below mirror and cache, such as ``TUDataset/MUTAG/raw``.
        names: names of the required files.
        optional: names of files that are copied if they exist.
        address: address of a ZIP archive with all files, or a function from file name to address; None for no download.
        checksums: SHA-256 by file name; other files are not checked.

    Returns:
        Path in the cache for each name that exists.

    Raises:
        DataError: if a required file is neither in the mirror nor downloaded, or has the wrong checksum, or the cache
            cannot be written to.

    Example:
        >>> raw_files("Nowhere", ["a.csv"])
        Traceback (most recent call last):
        graphseq.core.errors.DataError: Nowhere needs a.csv: ...
    """
    expected = checksums or {}
    folder = cache_folder() / "raw" / dataset
    mirror = mirror_folder()
    try:
        return _found(dataset, folder, mirror, names, optional, address, expected)
    except OSError as error:
        raise DataError(
            f"files of {dataset} cannot be kept in {folder}: {error}; give a folder that can be written to by the "
            "environment variable GRAPHSEQ_CACHE"
        ) from error


def _found(
    dataset: str,
    folder: Path,
    mirror: Path | None,
    names: Sequence[str],
    optional: Sequence[str],
    address: str | Callable[[str], str] | None,
    expected: dict[str, str],
) -> dict[str, Path]:
    """Return the files of :func:`raw_files`; fetch those that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [*names, *optional]
    for name in wanted:
        source = mirror / dataset / name if mirror else None
        if (folder / name).exists() or source is None or not source.is_file():
            continue
        with complete_or_absent(folder / name) as temporary:
            shutil.copyfile(source, temporary)
            _verify(temporary, expected.get(name), str(source))
    missing = [name for name in names if not (folder / name).exists()]
    tried = "no address is known"
    if missing and isinstance(address, str):
        tried = address
        try:
            _download_all(address, folder, wanted, expected)
        except DataError as error:
            tried = str(error)
    elif missing and callable(address):
        locate = address
        tried = ", ".join(locate(name) for name in missing)
        for name in missing:
            try:
                _download_all(locate(name), folder, [name], expected)
            except DataError as error:
                tried = str(error)
                break
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        looked = f"not in {mirror / dataset} (GRAPHSEQ_MIRROR)" if mirror else "no mirror (GRAPHSEQ_MIRROR is not set)"
        raise DataError(
            f"{dataset} needs {', '.join(missing)}: not in {folder}; {looked}; download: {tried}. "
            "Put the files into one of these folders, or set GRAPHSEQ_MIRROR to a folder that has them"
        )
    found = {name: folder / name for name in wanted if (folder / name).exists()}
    for name, path in found.items():
        _verify(path, expected.get(name), str(path))
    return found


def cached(name: str, key: Sequence[object], build: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return processed data from the cache, or build and store them.

    An entry is used only if its checksum, which is written last, matches; an entry that is damaged, or that another
    process is writing, is built again.

    Args:
        name: readable name of the entry.
        key: all inputs of the result: checksums of raw files, options, format version.
        build: function that returns the data as a dictionary of tensors and plain data.

    Example:
        >>> cached("example", ["v1"], lambda: {"x": torch.ones(2)})["x"]
        tensor([1., 1.])
    """
    digest = hashlib.sha256(repr(list(key)).encode()).hexdigest()[:16]
    path = cache_folder() / "processed" / f"{name}-{digest}.pt"
    seal = path.with_suffix(".sha256")
    try:
        if seal.read_bytes().strip() == checksum(path).encode():
            return torch.load(path, weights_only=True)
    except OSError:
        pass  # there is no entry, it cannot be read, or another process has just taken it away
    value = build()
    try:
        seal.unlink(missing_ok=True)
        with complete_or_absent(path) as temporary:
            torch.save(value, temporary)
        with complete_or_absent(seal) as temporary:
            temporary.write_text(checksum(path))
    except (
        OSError,
        RuntimeError,
    ) as error:  # torch's is of a full disk; a full or read-only one costs time at the next start, not the run at hand
        import warnings

        warnings.warn(f"processed data of {name} could not be kept in {path.parent}: {error}", stacklevel=2)
    return value
