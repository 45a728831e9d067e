"""Stores of tensors on one device, loaders that index them, and data modules."""

from graphseq.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
