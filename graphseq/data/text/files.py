"""Text files, plain or gzipped, as UTF-8 with one kind of line end."""

import gzip
import os
import zlib
from pathlib import Path

from graphseq.core.errors import DataError


def read_text(path: str | os.PathLike[str]) -> str:
    r"""Return the text of a file; ``\r\n`` and ``\r`` become ``\n``, a byte-order mark is removed.

    Args:
        path: path of a UTF-8 file, unpacked if its content is that of gzip or its name ends in ``.gz``.

    Raises:
        DataError: if the file is missing, empty, not UTF-8, holds zero bytes, as text in UTF-16 does, or is not a gzip
            archive although its name ends in ``.gz``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "lines.txt")
        ...     _ = path.write_bytes(b"to be\r\nor not")
        ...     read_text(path)
        'to be\nor not'
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz" or raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); give a text file, or a gzip archive of one") from error
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in raw:
        raise DataError(
            f"{path} is not UTF-8 text: it begins as UTF-16 does, or holds zero bytes; convert it first, such as by "
            "iconv -f utf-16 -t utf-8"
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} is not UTF-8: byte {raw[error.start]:#04x} at position {error.start}, line {line}; "
            "convert it first, such as by iconv -f latin1 -t utf-8"
        ) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text:
        raise DataError(f"{path} is empty; give a file with text")
    return text
