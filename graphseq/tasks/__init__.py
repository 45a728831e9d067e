"""Training procedures: one ``LightningModule`` per procedure, the network handed in."""

from graphseq.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
