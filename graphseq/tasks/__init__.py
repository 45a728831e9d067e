"""Training procedures: one ``LightningModule`` for each procedure, with the network as an argument."""

from graphseq.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
