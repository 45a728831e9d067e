"""Import closure of an experiment, read from source: the files it imports, and the files that these import."""

import ast
import functools
import hashlib
import importlib.metadata
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import graphseq
from graphseq.core.lazy import read_stub

__all__ = ["import_closure", "source_digest", "source_state"]

_PACKAGE = Path(graphseq.__file__).resolve().parent
# names of classes in configs and in arms; the file that defines such a name counts as imported
_CLASS_PATH = re.compile(r"\bgraphseq\.[a-z_]+(?:\.[A-Za-z_][A-Za-z0-9_]*)+")
_VERSIONS = ("torch", "torch-geometric", "lightning", "numba", "numpy")
# parts of the harness that only read finished rows, below its folder; a change of theirs changes no row
_HARNESS = _PACKAGE / "bench"
_READS_ROWS = {
    *(_HARNESS / name for name in ("__init__.py", "command.py", "discovery.py", "docstrings.py", "runner.py")),
    *(_HARNESS / "effects" / f"{name}.py"
      for name in ("claims", "protocol", "results", "selection", "statistics", "summary")),
    *(_HARNESS / "records").glob("*.py"),
}  # fmt: skip


@functools.cache
def _stub(room: Path) -> dict[str, str]:
    """Return the public names of a room that loads lazily, each with its module."""
    stub = room / "__init__.pyi"
    return read_stub(stub) if stub.exists() else {}


def _file(module: str, roots: Sequence[Path]) -> list[Path]:
    """Return the source of a dotted name below the roots: a module, or the module that a room's stub names."""
    *parents, last = parts = module.split(".")
    for root in roots:
        base = root.joinpath(*parts)
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return [path]
        stub = _stub(root.joinpath(*parents))
        if last in stub:
            return _file(stub[last], roots)
    return []


@functools.cache
def _imported(path: Path, text: bytes) -> set[str]:
    """Return the dotted names a file imports, wherever in it, and the class paths that stand in its strings."""
    if path.suffix != ".py":
        return set(_CLASS_PATH.findall(text.decode()))
    tree = ast.parse(text, filename=str(path))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.update([f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.update(_CLASS_PATH.findall(node.value))
    return names


def import_closure(files: Iterable[Path], roots: Sequence[Path] = ()) -> list[Path]:
    """Return the given files and everything they import from the package or the roots, directly or not, sorted.

    A name taken from a room that loads lazily stands for the file that defines it, not for the whole room. Class
    paths in strings and in YAML files count as imports. Of this harness, only what runs cells is followed: tables,
    reports and every ``figures.py`` may change without making rows stale.

    Args:
        files: Python or YAML files to begin with.
        roots: folders beside the package whose modules are followed, such as the one that holds ``experiments``.

    Example:
        >>> names = [path.name for path in import_closure([_PACKAGE / "nn" / "losses" / "coherence.py"])]
        >>> "coherence.py" in names, "command.py" in names
        (True, False)
    """
    places = [_PACKAGE.parent, *roots]
    todo = [path.resolve() for path in files]
    found: set[Path] = set()
    while todo:
        path = todo.pop()
        if path in found or path in _READS_ROWS or path.name == "figures.py":
            continue
        found.add(path)
        todo += [file.resolve() for name in _imported(path, path.read_bytes()) for file in _file(name, places)]
    return sorted(found)


def source_state() -> dict[str, str | bool | None]:
    """Return the git commit of the checkout that this package lies in, and whether files differ from it.

    Both are None where there is no checkout, or no git.

    Example:
        >>> sorted(source_state())
        ['commit', 'modified']
    """

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=_PACKAGE.parent, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "modified": None if changes is None else bool(changes)}


def source_digest(files: Iterable[Path], roots: Sequence[Path] = (), more: str = "") -> str:
    """Return a digest of the import closure of some files, of the versions of the numerical libraries, and of a text.

    Args:
        files: Python or YAML files to begin with.
        roots: folders beside the package whose modules are followed, see :func:`import_closure`.
        more: text that enters the digest too, such as settings of the run.

    Example:
        >>> file = _PACKAGE / "core" / "errors.py"
        >>> source_digest([file]) == source_digest([file], more="another")
        False
    """
    digest = hashlib.sha256(more.encode())
    for package in _VERSIONS:
        try:
            digest.update(f"{package}={importlib.metadata.version(package)};".encode())
        except importlib.metadata.PackageNotFoundError:
            digest.update(f"{package} absent;".encode())
    for path in import_closure(files, roots):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
