"""Whole networks, wired from layers; they know nothing of training."""

from typing import TYPE_CHECKING

from graphseq.core.lazy import attach

if TYPE_CHECKING:
    from graphseq.models.gin import GINClassifier as GINClassifier
    from graphseq.models.graph import GraphClassifier as GraphClassifier
    from graphseq.models.graph import GraphEncoder as GraphEncoder
    from graphseq.models.mlp import MLP as MLP
    from graphseq.models.node import NodeClassifier as NodeClassifier
    from graphseq.models.pyg import FromPyG as FromPyG
    from graphseq.models.vision import ConvNet as ConvNet

_FILES: dict[str, str] = {
    "ConvNet": "vision",
    "FromPyG": "pyg",
    "GINClassifier": "gin",
    "GraphClassifier": "graph",
    "GraphEncoder": "graph",
    "MLP": "mlp",
    "NodeClassifier": "node",
}
__getattr__, __dir__, __all__ = attach(__name__, _FILES)
