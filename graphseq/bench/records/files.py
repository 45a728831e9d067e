"""Records on disk: written whole or not at all, with their figure beside them."""

import contextlib
import io
import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graphseq.bench.experiment import Experiment, Row

__all__ = ["add_rerun", "draws", "finite", "read_records", "replacing", "write_figure", "write_json"]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file in the same folder that replaces ``path`` on success and vanishes on failure.

    Args:
        path: file to write; its folder is created.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> with replacing(folder / "note.txt") as temporary:
        ...     _ = temporary.write_text("whole")
        >>> (folder / "note.txt").read_text(), len(list(folder.iterdir()))
        ('whole', 1)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's files are private
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def finite(value: Any) -> Any:
    """Return plain data with None for every number that is not finite, which JSON cannot express.

    Args:
        value: plain data.

    Example:
        >>> finite({"low": float("-inf"), "mean": 0.5})
        {'low': None, 'mean': 0.5}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def write_json(path: Path, value: Any) -> None:
    """Write plain data as JSON, atomically.

    Args:
        path: JSON file to write.
        value: plain data.

    Raises:
        TypeError: if ``value`` is not plain data; the file then stays unchanged.

    Example:
        >>> file = Path(tempfile.mkdtemp()) / "record.json"
        >>> write_json(file, [{"name": "speed.segment"}])
        >>> json.loads(file.read_text())
        [{'name': 'speed.segment'}]
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(finite(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def draws(experiment: Experiment) -> bool:
    """Return whether an experiment has a figure.

    Args:
        experiment: any experiment.

    Example:
        >>> from graphseq.bench import load_experiment
        >>> draws(load_experiment("speed.segment"))  # doctest: +SKIP
        True
    """
    return type(experiment).draw is not Experiment.draw


def write_figure(path: Path, experiment: Experiment, record: Row) -> bool:
    """Draw a record and write it as PNG, atomically.

    Args:
        path: PNG file to write.
        experiment: experiment of the record, whose ``draw`` is called.
        record: record that :func:`~graphseq.bench.runner.run_experiment` returned.

    Returns:
        Whether there is a figure: not if the experiment draws none, or nothing ran that it could compare.

    Example:
        >>> write_figure(Path("loader.png"), load_experiment("speed.graph_loader"), record)  # doctest: +SKIP
        True
    """
    if not draws(experiment) or all("skipped" in row for row in record["rows"]):
        return False
    from matplotlib.figure import Figure  # not pyplot: no window, no global state
    from PIL import Image  # which matplotlib needs anyway

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    experiment.draw(record, figure.subplots())
    if not figure.axes:
        return False
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=130)
    with replacing(path) as temporary, Image.open(drawn) as image:
        # a palette of 64 colours takes a third of the bytes
        image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(temporary, optimize=True)
    return True


def add_rerun(path: Path, rerun: Row) -> None:
    """Put cells that were run again beside the record they belong to, which keeps its rows, date and verdict.

    Args:
        path: JSON file of the record.
        rerun: record of the rerun; it replaces an earlier rerun of the same cells.

    Raises:
        ValueError: if ``path`` does not exist.

    Example:
        >>> path = Path(tempfile.mkdtemp()) / "effect.made.json"
        >>> write_json(path, {"name": "effect.made", "rows": [1]})
        >>> add_rerun(path, {"only": "batch=8", "rows": [2]})
        >>> json.loads(path.read_text())
        {'name': 'effect.made', 'rows': [1], 'reruns': [{'only': 'batch=8', 'rows': [2]}]}
    """
    if not path.exists():
        raise ValueError(f"there is no record {path} to put a rerun beside; run the experiment without --only first")
    record = json.loads(path.read_text("utf-8"))
    others = [known for known in record.get("reruns", []) if known["only"] != rerun["only"]]
    write_json(path, {**record, "reruns": [*others, rerun]})


def read_records(folder: Path) -> list[Row]:
    """Return the records of a folder, sorted by name.

    Args:
        folder: folder of the records, one file ``<name>.json`` each.

    Raises:
        ValueError: if a file is not a record, or is not named after the record in it.

    Example:
        >>> read_records(Path(tempfile.mkdtemp()))
        []
    """
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON ({error}); remove it or run the experiment again") from error
        needed = {"name", "kind", "verdict", "rows", "checks", "environment"}
        if not isinstance(record, dict) or not needed <= record.keys() or record["name"] != path.stem:
            raise ValueError(
                f"{path} is not the record of {path.stem!r}; `graphseq bench {path.stem} --out-dir {folder}` writes it"
            )
        records.append(record)
    return records
