"""graphseq: graph, temporal-graph and sequence modelling on PyTorch Geometric and Lightning.

Importing this package loads nothing heavy, not even torch; each room loads on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphseq.tasks.checkpoints import load as load

__version__ = "0.1.0"

_ROOMS = (
    "analysis",
    "callbacks",
    "core",
    "data",
    "metrics",
    "models",
    "nn",
    "ops",
    "sparsity",
    "tasks",
)

__all__ = ["__version__", "load", *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"graphseq.{name}")
    if name == "load":
        from graphseq.tasks.checkpoints import load

        return load
    raise AttributeError(f"module 'graphseq' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
