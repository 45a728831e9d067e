"""Lazy rooms: the public names of a room stand in its ``__init__.pyi`` and load on first use (PEP 562).

Type checkers read the same stub, so a public name is written in two places only: the ``__all__`` of the file that
defines it and the stub of its room.
"""

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ROOMS: dict[str, dict[str, str]] = {}


def read_stub(path: Path) -> dict[str, str]:
    """Return the public names of a stub, each with the module that defines it.

    Args:
        path: a file of lines ``from package.module import Name as Name``.

    Example:
        >>> read_stub(Path(__file__).with_name("__init__.pyi"))["record"]
        'graphseq.core.spec'
    """
    return {
        alias.asname or alias.name: str(node.module)
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def public_names(room: str) -> dict[str, str]:
    """Return the public names of an imported room, each with the module that defines it; {} for other packages.

    Args:
        room: dotted name of a package.

    Example:
        >>> import graphseq.core
        >>> public_names("graphseq.core")["record"]
        'graphseq.core.spec'
        >>> public_names("json")
        {}
    """
    return dict(_ROOMS.get(room, {}))


def attach(room: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return a room's ``__getattr__``, ``__dir__`` and ``__all__`` from the stub beside its ``__init__``.

    Args:
        room: dotted name of the package, ``__name__`` in its ``__init__``.

    Returns:
        The three module attributes, in the order ``__getattr__, __dir__, __all__``.

    Example:
        >>> get, names, public = attach("graphseq.core")
        >>> "record" in public
        True
    """
    files = read_stub(Path(str(sys.modules[room].__file__)).with_name("__init__.pyi"))
    _ROOMS[room] = files
    public = sorted(files)

    def __getattr__(name: str) -> Any:
        if name not in files:
            raise AttributeError(
                f"module {room!r} has no attribute {name!r}; it has {', '.join(public) or 'nothing yet'}"
            )
        value = getattr(importlib.import_module(files[name]), name)
        setattr(sys.modules[room], name, value)  # the next access does not come here
        return value

    def __dir__() -> list[str]:
        return public

    return __getattr__, __dir__, public
