"""What is added to any training from outside."""

from graphseq.core.lazy import attach

_FILES: dict[str, str] = {}
__getattr__, __dir__, __all__ = attach(__name__, _FILES)
