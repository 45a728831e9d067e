"""Layers: plain ``torch.nn.Module`` classes that know tensors and nothing of training."""

from typing import TYPE_CHECKING

from graphseq.core.lazy import attach

if TYPE_CHECKING:
    from graphseq.nn.graph.convolutions import gin_mlp as gin_mlp
    from graphseq.nn.graph.convolutions import make_convolution as make_convolution
    from graphseq.nn.graph.encoders import CategoricalEncoder as CategoricalEncoder
    from graphseq.nn.graph.encoders import FeatureEncoder as FeatureEncoder
    from graphseq.nn.graph.pooling import GraphPool as GraphPool
    from graphseq.nn.graph.pooling import graph_index as graph_index
    from graphseq.nn.graph.virtual_node import VirtualNode as VirtualNode

_FILES: dict[str, str] = {
    "CategoricalEncoder": "graph.encoders",
    "FeatureEncoder": "graph.encoders",
    "GraphPool": "graph.pooling",
    "VirtualNode": "graph.virtual_node",
    "gin_mlp": "graph.convolutions",
    "graph_index": "graph.pooling",
    "make_convolution": "graph.convolutions",
}
__getattr__, __dir__, __all__ = attach(__name__, _FILES)
