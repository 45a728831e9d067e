"""Metrics: ``torchmetrics.Metric`` classes and their functional forms."""

from graphseq.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
