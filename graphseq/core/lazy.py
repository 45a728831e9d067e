"""Lazy rooms: a room's names are a table name -> file, loaded on first use (PEP 562)."""

import importlib
import sys
from collections.abc import Callable
from typing import Any


def attach(room: str, files: dict[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Give a room its ``__getattr__``, ``__dir__`` and ``__all__`` from a table of its public names.

    Args:
        room: dotted name of the package, ``__name__`` in its ``__init__``.
        files: public name -> module inside the room that defines it.

    Returns:
        The three module attributes, in the order ``__getattr__, __dir__, __all__``.

    Example:
        >>> get, names, public = attach("graphseq.core", {"record": "spec"})
        >>> public
        ['record']
    """
    public = sorted(files)

    def __getattr__(name: str) -> Any:
        if name not in files:
            raise AttributeError(
                f"module {room!r} has no attribute {name!r}; it has {', '.join(public) or 'nothing yet'}"
            )
        value = getattr(importlib.import_module(f"{room}.{files[name]}"), name)
        setattr(sys.modules[room], name, value)  # the next access does not come here
        return value

    def __dir__() -> list[str]:
        return public

    return __getattr__, __dir__, public
