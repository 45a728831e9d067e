"""Layers: plain ``torch.nn.Module`` classes on tensors, independent of training."""

from graphseq.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
