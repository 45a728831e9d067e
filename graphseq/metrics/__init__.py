"""Numbers: ``torchmetrics.Metric`` classes and their functional twins."""

from graphseq.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
