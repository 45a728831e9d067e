"""How objects were built, batch types, errors and random generators: what every other room may use."""

from graphseq.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
