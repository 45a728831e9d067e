"""Analysis of trained models, without training them."""

from graphseq.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
