"""Files that callbacks write, complete or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from matplotlib.figure import Figure

__all__: list[str] = []


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG.

    Args:
        figure: figure of matplotlib.
        path: path of the file.
    """
    write_file(path, lambda temporary: figure.savefig(temporary, dpi=120, format="png"))


def report_folder(trainer: "Trainer", folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the folder for the files of a report, which then exists; None in all processes but the first.

    Call it in every process: the folder of the logger is broadcast, and the first process would wait for the others.

    Args:
        trainer: trainer of the run.
        folder: folder that was asked for; None for that of the logger, or the root folder without one.
    """
    found = folder or trainer.log_dir or trainer.default_root_dir
    if not trainer.is_global_zero:
        return None
    Path(found).mkdir(parents=True, exist_ok=True)
    return Path(found)


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
