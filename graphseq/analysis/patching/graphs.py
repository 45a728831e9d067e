"""Rules of relevance propagation for layers of PyTorch Geometric."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torch_geometric.nn import GATConv, GATv2Conv, GraphNorm, LayerNorm, TransformerConv
from torch_geometric.utils import scatter

__all__: list[str] = []


def graph_norm(norm: nn.Module) -> Callable[..., Tensor] | None:
    """Return PyG's norm with a constant divisor, None for another module.

    Args:
        norm: module of PyG.

    Example:
        >>> norm, x = GraphNorm(4), torch.randn(6, 4)
        >>> bool(torch.allclose(graph_norm(norm)(x), norm(x), atol=1e-6))
        True
    """
    if isinstance(norm, GraphNorm):
        return lambda x, batch=None, batch_size=None: _over_graphs(norm, x, batch, False, norm.mean_scale)
    if not isinstance(norm, LayerNorm):
        return None
    if norm.mode == "graph":
        return lambda x, batch=None, batch_size=None: _over_graphs(norm, x, batch, True, 1.0)
    return lambda x, batch=None, batch_size=None: _affine(norm, _divided(norm, x - x.mean(-1, keepdim=True)))


def _over_graphs(norm: Any, x: Tensor, batch: Tensor | None, channels: bool, share: Any) -> Tensor:
    """Return the norm over the nodes of each graph, and over all channels of them if ``channels``."""
    index = x.new_zeros(len(x), dtype=torch.int64) if batch is None else batch

    def mean(value: Tensor) -> Tensor:
        value = value.mean(-1, keepdim=True) if channels else value
        return scatter(value, index, 0, reduce="mean").index_select(0, index)

    centred = x - mean(x) * share
    square = mean(centred.detach().square())
    if channels and batch is None:  # of all PyG's norms, only this one adds eps to the deviation
        return _affine(norm, centred / (square.sqrt() + norm.eps))
    return _affine(norm, centred / (square + norm.eps).sqrt())


def _divided(norm: Any, centred: Tensor) -> Tensor:
    return centred / (centred.detach().square().mean(-1, keepdim=True) + norm.eps).sqrt()


def _affine(norm: Any, y: Tensor) -> Tensor:
    return y if norm.weight is None else y * norm.weight + norm.bias


def constant_attention(layer: nn.Module) -> RemovableHandle | None:
    """Let no gradient reach the attention weights of PyG's layer, until the handle is removed.

    Args:
        layer: module of PyG; other layers than GAT, GATv2 and ``TransformerConv`` have no handle.

    Example:
        >>> constant_attention(nn.Linear(2, 2)) is None
        True
    """
    if isinstance(layer, GATConv | GATv2Conv):
        return layer.register_edge_update_forward_hook(lambda _, inputs, alpha: alpha.detach())
    if isinstance(layer, TransformerConv):
        return layer.register_message_forward_pre_hook(_without_scores)
    return None


def _without_scores(_: nn.Module, inputs: tuple[dict[str, Any]]) -> tuple[dict[str, Any]]:
    """Detach queries and keys; with edge features they are part of the key and of the value, which keeps them."""
    scored = {name: value.detach() for name, value in inputs[0].items() if name in ("query_i", "key_j")}
    return ({**inputs[0], **scored},)
