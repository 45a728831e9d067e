"""Constructor calls recorded as plain data, so that a checkpoint can rebuild objects without pickles."""

import dataclasses
import enum
import functools
import importlib
import inspect
import os
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any, Self, TypeVar

import numpy as np
from torch import nn

from graphseq.core.lazy import public_names

__all__ = ["MISSING", "Recorded", "make", "public_path", "record", "record_foreign_modules", "to_spec"]

T = TypeVar("T")

Record = dict[str, Any]
"""A constructor call as plain data: ``class_path``, and ``init_args`` by name."""


class _Missing:
    """Type of :data:`MISSING`; deep copies and unpickling return the same object."""

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        return "MISSING"


MISSING = _Missing()
"""Stands for a value that cannot be written as plain data."""


def public_path(thing: type | Callable[..., Any]) -> str:
    """Return the shortest dotted path under which a class or function can be imported.

    ``torch.optim.adamw.AdamW`` is ``torch.optim.AdamW``; a class of a graphseq room is named by its room, so that
    moving a file breaks no checkpoint.

    Args:
        thing: a class or function with a name of its own.

    Raises:
        ValueError: if it has no importable name (a lambda, a class made inside a function).

    Example:
        >>> public_path(Recorded)
        'graphseq.core.Recorded'
    """
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if module is None or name is None or "<" in name:
        raise ValueError(f"{thing!r} has no importable name; define it at the top level of a module")
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        candidate = ".".join(parts[:length])
        package = sys.modules.get(candidate)
        # names of lazy rooms are read from their stubs; in other packages only existing attributes are read,
        # since getattr may import or warn
        if package is None:
            continue
        found = vars(package).get(name)
        if found is None and name in public_names(candidate):
            found = getattr(package, name)
        if found is thing:
            return f"{candidate}.{name}"
    return f"{module}.{name}"


@functools.lru_cache(maxsize=4096)
def _signature(cls: type) -> inspect.Signature:
    return inspect.signature(cls.__init__)  # type: ignore[misc]


def record(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Record | None:
    """Record one constructor call as plain data.

    Only arguments that were given are recorded, not defaults.

    Args:
        cls: the class that was called.
        args: positional arguments of the call.
        kwargs: named arguments of the call.

    Returns:
        ``{"class_path": public path, "init_args": {name: value}}``, or None if the arguments do not fit the
        constructor: unpickling calls ``__new__`` without arguments, and a wrong call is reported by ``__init__``.

    Example:
        >>> record(nn.Linear, (3, 4), {"bias": False})["init_args"]
        {'in_features': 3, 'out_features': 4, 'bias': False}
    """
    try:
        signature = _signature(cls)
        bound = signature.bind(None, *args, **kwargs)
    except (TypeError, ValueError):
        return None
    given: dict[str, Any] = {}
    for index, (name, value) in enumerate(bound.arguments.items()):
        kind = signature.parameters[name].kind
        if index == 0:
            continue  # self
        if kind is inspect.Parameter.VAR_KEYWORD:
            given.update(value)
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            given[f"*{name}"] = MISSING
        else:
            given[name] = value
    init_args = {}
    for name, value in given.items():
        spec = to_spec(value)
        if spec is MISSING:
            warnings.warn(
                f"{cls.__name__}({name}=...) got a {type(value).__name__} that cannot be written as plain data. "
                f"A checkpoint will not hold it: load with graphseq.load(path, {name.lstrip('*')}=...), "
                "or build foreign modules with graphseq.core.make(cls, ...)",
                UserWarning,
                stacklevel=4,
            )
        else:
            init_args[name] = spec
    try:
        path = public_path(cls)
    except ValueError:
        path = f"{cls.__module__}.{cls.__qualname__}"  # a class inside a function: loading names the problem
    return {"class_path": path, "init_args": init_args}


class Recorded:
    """Mixin that records the outermost constructor call of an object as plain data in ``_record``.

    It works in ``__new__``, which runs once per object with the outermost arguments, before any ``__init__``;
    signatures are unchanged, and no reference to an argument is kept.

    Example:
        >>> class Scale(Recorded, nn.Module):
        ...     def __init__(self, factor: float = 1.0):
        ...         super().__init__()
        >>> Scale(2.0)._record["init_args"]
        {'factor': 2.0}
    """

    _record: Record | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Build the object and record the call."""
        self = super().__new__(cls)
        self.__dict__["_record"] = record(cls, args, kwargs)
        return self


def make(cls: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Build an object of any class and attach the record of its constructor call.

    Args:
        cls: class to build, usually one of another library.
        args: positional arguments of the constructor.
        kwargs: named arguments of the constructor.

    Example:
        >>> net = make(nn.Linear, 3, 4)
        >>> net._record["class_path"]
        'torch.nn.Linear'
    """
    built = cls(*args, **kwargs)
    if isinstance(cls, type) and "_record" not in vars(built):
        built.__dict__["_record"] = record(cls, args, kwargs)
    return built


def _make_module(class_type: type[T], *args: Any, **kwargs: Any) -> T:
    return make(class_type, *args, **kwargs)


def record_foreign_modules() -> None:
    """Let jsonargparse build every ``nn.Module`` through :func:`make`, so that networks in configs are recorded.

    Called by the command line and by :func:`graphseq.load`; calling it again changes nothing.

    Example:
        >>> record_foreign_modules()
    """
    import jsonargparse

    jsonargparse.add_instantiator(_make_module, nn.Module, subclasses=True)


def _partial_spec(value: "functools.partial[Any]") -> Any:
    # jsonargparse hands a callable with a return type over as partial(instantiator, Class, **kwargs)
    classes = [part for part in (value.func, *value.args) if isinstance(part, type)]
    if len(classes) == 1:
        target: Any = classes[0]
    elif isinstance(value.func, types.FunctionType) and not value.args:
        target = value.func
    else:
        return MISSING
    init_args = {name: to_spec(item) for name, item in value.keywords.items()}
    if any(item is MISSING for item in init_args.values()):
        return MISSING
    try:
        return {"class_path": public_path(target), "init_args": init_args}
    except ValueError:
        return MISSING


def to_spec(value: Any) -> Any:
    """Turn a constructor argument into plain data that jsonargparse can read back, or :data:`MISSING`.

    Numbers, strings, None, lists, dictionaries, dataclasses, classes, functions of a module, partials of a class
    and recorded modules can be written; lambdas, tensors and modules without a record cannot.

    Args:
        value: argument of a constructor.

    Example:
        >>> to_spec((1, 2.5, None, "x"))
        [1, 2.5, None, 'x']
        >>> to_spec(lambda: 0)
        MISSING
    """
    if value is None or (isinstance(value, bool | int | float | str) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple | set | frozenset):
        items = [to_spec(item) for item in value]
        return MISSING if any(item is MISSING for item in items) else items
    if isinstance(value, dict):
        if not all(isinstance(key, str | int) for key in value):
            return MISSING
        entries = {key: to_spec(item) for key, item in value.items()}
        return MISSING if any(item is MISSING for item in entries.values()) else entries
    if isinstance(value, functools.partial):
        return _partial_spec(value)
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        try:
            return public_path(value)
        except ValueError:
            return MISSING
    noted = getattr(value, "__dict__", {}).get("_record")
    if noted is not None:
        return noted
    if dataclasses.is_dataclass(value):
        fields = {field.name: to_spec(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
        return MISSING if any(item is MISSING for item in fields.values()) else fields
    return MISSING


def import_path(path: str) -> Any:
    """Import the object that a public path names.

    Args:
        path: dotted path, such as ``graphseq.nn.PolyNorm``.

    Raises:
        ImportError: if there is no such module or name.

    Example:
        >>> import_path("torch.nn.Linear") is nn.Linear
        True
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (AttributeError, ValueError, ModuleNotFoundError) as error:
        raise ImportError(f"there is no {path!r}: {error}") from error
