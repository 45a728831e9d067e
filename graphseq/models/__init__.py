"""Whole networks, wired from layers; they know nothing of training."""

from typing import TYPE_CHECKING

from graphseq.core.lazy import attach

if TYPE_CHECKING:
    from graphseq.models.apan import APAN as APAN
    from graphseq.models.edgebank import EdgeBank as EdgeBank
    from graphseq.models.gin import GINClassifier as GINClassifier
    from graphseq.models.graph import GraphClassifier as GraphClassifier
    from graphseq.models.graph import GraphEncoder as GraphEncoder
    from graphseq.models.memory_network import MemoryNetwork as MemoryNetwork
    from graphseq.models.memory_network import MemoryUpdate as MemoryUpdate
    from graphseq.models.mlp import MLP as MLP
    from graphseq.models.node import NodeClassifier as NodeClassifier
    from graphseq.models.pyg import FromPyG as FromPyG
    from graphseq.models.streaming import LinkStream as LinkStream
    from graphseq.models.temporal import JODIE as JODIE
    from graphseq.models.temporal import TGAT as TGAT
    from graphseq.models.temporal import TGN as TGN
    from graphseq.models.temporal import DyRep as DyRep
    from graphseq.models.vision import ConvNet as ConvNet

_FILES: dict[str, str] = {
    "APAN": "apan",
    "ConvNet": "vision",
    "DyRep": "temporal",
    "EdgeBank": "edgebank",
    "FromPyG": "pyg",
    "GINClassifier": "gin",
    "GraphClassifier": "graph",
    "GraphEncoder": "graph",
    "JODIE": "temporal",
    "LinkStream": "streaming",
    "MLP": "mlp",
    "MemoryNetwork": "memory_network",
    "MemoryUpdate": "memory_network",
    "NodeClassifier": "node",
    "TGAT": "temporal",
    "TGN": "temporal",
}
__getattr__, __dir__, __all__ = attach(__name__, _FILES)
