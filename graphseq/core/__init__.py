"""Construction records, batch types, errors and random generators, for use in every other package."""

from graphseq.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
