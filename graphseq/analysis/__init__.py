"""Questions put to a trained model; nothing here trains."""

from graphseq.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
