"""Harness of named, seeded experiments: a method against its named baseline (effects) and against peers (speed)."""

from graphseq.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
