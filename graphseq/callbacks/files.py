"""Files that callbacks write, complete or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__: list[str] = []


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG.

    Args:
        figure: figure of matplotlib.
        path: path of the file.
    """
    write_file(path, lambda temporary: figure.savefig(temporary, dpi=120, format="png"))


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a temporary file, and move it to its path when it is complete.

    Args:
        path: path of the file.
        write: function that writes to the path it is given.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        write(Path(name))
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
