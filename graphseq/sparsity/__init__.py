"""Sparse connectivity: random-graph structures, masks, pruning and regrowth."""

from graphseq.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
