"""What is added to any training from outside."""

from graphseq.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
