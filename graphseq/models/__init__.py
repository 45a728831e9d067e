"""Whole networks, wired from layers; they know nothing of training."""

from graphseq.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
