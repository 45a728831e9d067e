"""``graphseq list``: public names with their first docstring lines, read from source files without importing torch."""

import argparse
import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from graphseq.bench import experiments
from graphseq.bench.discovery import summary
from graphseq.bench.docstrings import arxiv_id, first_line, module_docstrings, module_file
from graphseq.cli.shipped import shipped_files, shipped_folder
from graphseq.core.lazy import public_names

__all__ = ["list_configs", "list_examples", "list_experiments", "list_room", "main"]

_ROOMS = ("tasks", "nn", "models", "data", "callbacks", "metrics", "ops", "analysis", "sparsity")
_OTHER = ("methods", "configs", "examples", "bench")


def _row(name: str, docstring: str) -> dict[str, str]:
    line = first_line(docstring).replace("``", "`")
    return {"name": name, "what it is": line, "arXiv": arxiv_id(docstring)}


def _room_files(room: str) -> dict[str, str]:
    """A room's public names, each with the module that defines it."""
    importlib.import_module(f"graphseq.{room}")
    return public_names(f"graphseq.{room}")


def list_room(room: str) -> list[dict[str, str]]:
    """Return the public names of a room, each with the first line and the arXiv number of its docstring.

    Args:
        room: name of the sub-package, such as ``nn``.

    Example:
        >>> "segment_sum" in [row["name"] for row in list_room("ops")]
        True
    """
    docstrings: dict[str, dict[str, str]] = {}
    rows = []
    for name, module in sorted(_room_files(room).items()):
        if module not in docstrings:
            file = module_file(module)
            docstrings[module] = module_docstrings(file) if file else {}
        rows.append(_row(name, docstrings[module].get(name, "")))
    return rows


def list_configs(folder: Path | None = None) -> list[dict[str, str]]:
    r"""Return configs with their first comment lines: those of a folder by path, or those of the package by name.

    Args:
        folder: folder that is searched, with all folders below it; None for the configs that come with the package,
            whose names ``--config`` understands.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "tiny.yaml").write_text("# A small run.\nseed_everything: 0\n")
        >>> list_configs(folder)[0]["what it is"]
        'A small run.'
        >>> "graph/gine_digits" in [row["name"] for row in list_configs()]
        True
    """
    if folder is None:
        found = shipped_files("configs")
    else:
        found = {path.as_posix(): path for path in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")])}
    rows = []
    for name, path in found.items():
        comments = (line.strip() for line in path.read_text("utf-8").splitlines())
        first = next((line.lstrip("# ") for line in comments if line.startswith("#") and line.strip("# ")), "")
        rows.append({"name": name, "what it is": first, "arXiv": ""})
    return rows


def _all_configs() -> list[dict[str, str]]:
    """Return the configs in ``configs/`` of the working directory, then those of the package."""
    own = Path("configs")
    is_own = own.is_dir() and own.resolve() != shipped_folder("configs").resolve()
    return [*(list_configs(own) if is_own else []), *list_configs()]


def list_examples() -> list[dict[str, str]]:
    """Return the example scripts that come with the package, each with the first line of its docstring.

    Example:
        >>> "plain_pytorch" in [row["name"] for row in list_examples()]
        True
    """
    texts = {name: ast.get_docstring(ast.parse(path.read_bytes())) for name, path in shipped_files("examples").items()}
    return [{"name": name, "what it is": first_line(text or ""), "arXiv": ""} for name, text in texts.items()]


def list_experiments() -> list[dict[str, str]]:
    """Return the experiments in ``experiments/``, each with the first line and the arXiv number of its docstring.

    Example:
        >>> [row["name"] for row in list_experiments()][0]  # doctest: +SKIP
        'effect.gin_tu'
    """
    return [_row(name, summary(path, name.partition(".")[0])) for name, path in experiments().items()]


def _overview() -> list[dict[str, str | int]]:
    """Every room with its names, without reading any docstring."""
    names: dict[str, list[str]] = {room: sorted(_room_files(room)) for room in _ROOMS}
    names["configs"] = [row["name"] for row in _all_configs()]
    names["examples"] = list(shipped_files("examples"))
    names["bench"] = list(experiments())
    return [{"room": room, "count": len(found), "names": ", ".join(found)} for room, found in names.items()]


def main(argv: Sequence[str]) -> int:
    """Run ``graphseq list`` with the given arguments and return the exit status: 0, or 2 for wrong arguments.

    In a terminal long lines wrap; in a pipe each name has one line.

    Args:
        argv: words of the command line after ``graphseq list``.

    Example:
        >>> main(["nothing"])
        2
    """
    parser = argparse.ArgumentParser(
        prog="graphseq list",
        description="List public names with a line each; without an argument, the names of all sub-packages.",
    )
    parser.add_argument("room", nargs="?", choices=(*_ROOMS, *_OTHER), metavar="ROOM",
                        help=", ".join((*_ROOMS, *_OTHER)))  # fmt: skip
    parser.add_argument("key", nargs="?", metavar="KEY", help="after `methods`: one of its keys, for the whole entry")
    parser.add_argument("--markdown", nargs="?", const="-", metavar="FILE", help="after `methods`: print the table as "
                        "Markdown, or write it between the markers of FILE")  # fmt: skip
    try:
        arguments = parser.parse_args(list(argv))
        room = arguments.room
        if room != "methods" and (arguments.key is not None or arguments.markdown is not None):
            parser.error(f"{arguments.key or '--markdown'} is understood after `graphseq list methods` only")
    except SystemExit as stop:  # argparse has said what is wrong, or printed the help
        return int(stop.code or 0)

    if room == "methods":
        from graphseq.cli.methods import list_methods

        return list_methods(arguments.key, arguments.markdown)

    from rich.console import Console

    from graphseq.bench.records.table import print_table

    console = Console()
    if room is None:
        print_table(_overview(), console, wrap=False)
        return 0
    if room == "configs":
        rows = _all_configs()
    elif room == "examples":
        rows = list_examples()
    elif room == "bench":
        rows = list_experiments()
    else:
        rows = list_room(room)
    if not rows:
        print(f"graphseq list: {room} has no names yet", file=sys.stderr)
    cited = any(row["arXiv"] for row in rows)
    print_table(rows, console, columns=("name", "what it is", "arXiv") if cited else ("name", "what it is"), wrap=False)
    return 0
