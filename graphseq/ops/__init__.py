"""Functions from tensors to tensors: segment reductions, ragged layouts, scans, kernels."""

from graphseq.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
