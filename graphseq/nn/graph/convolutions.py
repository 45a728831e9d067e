"""Message passing layers by name, with fixed choices where the papers leave them open."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch_geometric.nn import BatchNorm, GATConv, GCNConv, GINConv, GINEConv, PNAConv, SAGEConv

__all__ = ["gin_mlp", "make_convolution"]

ConvolutionName = Literal["gin", "gine", "gcn", "sage", "gat", "pna"]


def gin_mlp(in_channels: int, out_channels: int, num_layers: int = 2) -> nn.Sequential:
    """Build the perceptron inside a GIN layer: linear maps with batch norm and ReLU between them.

    Source: arXiv 1810.00826, section 7. Differs from it: none.

    Args:
        in_channels: width of the input.
        out_channels: width of the hidden layers and of the output.
        num_layers: number of linear maps, at least 1.

    Shape:
        x (N, in_channels) -> (N, out_channels)

    Raises:
        ValueError: if ``num_layers`` < 1.

    Example:
        >>> [type(layer).__name__ for layer in gin_mlp(3, 8)]
        ['Linear', 'BatchNorm', 'ReLU', 'Linear']
    """
    if num_layers < 1:
        raise ValueError(f"gin_mlp(num_layers={num_layers}): give at least 1 linear map")
    layers: list[nn.Module] = [nn.Linear(in_channels, out_channels)]
    for _ in range(num_layers - 1):
        # a batch of one node has no variance: that norm then uses its running statistics instead of failing
        layers += [BatchNorm(out_channels, allow_single_element=True), nn.ReLU()]
        layers += [nn.Linear(out_channels, out_channels)]
    return nn.Sequential(*layers)


def _gin(in_channels: int, out_channels: int, *, train_eps: bool, **_: Any) -> nn.Module:
    return GINConv(gin_mlp(in_channels, out_channels), train_eps=train_eps)


def _gine(in_channels: int, out_channels: int, *, edge_channels: int | None, train_eps: bool, **_: Any) -> nn.Module:
    if edge_channels is None:
        raise ValueError(
            "convolution 'gine' adds edge features to its messages and was given none: give edge_channels (their "
            "width) or edge_categories, or take 'gin', which has none"
        )
    return GINEConv(gin_mlp(in_channels, out_channels), train_eps=train_eps, edge_dim=edge_channels)


def _gat(in_channels: int, out_channels: int, *, edge_channels: int | None, heads: int, **_: Any) -> nn.Module:
    if heads < 1 or out_channels % heads:
        raise ValueError(
            f"convolution 'gat' splits its {out_channels} output channels over {heads} heads, which do not divide "
            "them; give a number of heads that divides the channels"
        )
    return GATConv(in_channels, out_channels // heads, heads=heads, edge_dim=edge_channels)


def _pna(
    in_channels: int,
    out_channels: int,
    *,
    edge_channels: int | None,
    degree_histogram: list[int] | None,
    **_: Any,
) -> nn.Module:
    if not degree_histogram or not any(degree_histogram[1:]):
        raise ValueError(
            f"convolution 'pna' scales by the degrees of the training graphs and got degree_histogram="
            f"{degree_histogram}: give the number of nodes of degree 0, 1, 2, ..., of which some must have edges"
        )
    return PNAConv(
        in_channels,
        out_channels,
        aggregators=["mean", "max", "min", "std"],
        scalers=["identity", "amplification", "attenuation"],
        deg=torch.tensor(degree_histogram),
        edge_dim=edge_channels,
    )


_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "gin": _gin,
    "gine": _gine,
    "gcn": lambda in_channels, out_channels, **_: GCNConv(in_channels, out_channels),
    "sage": lambda in_channels, out_channels, **_: SAGEConv(in_channels, out_channels),
    "gat": _gat,
    "pna": _pna,
}


def make_convolution(
    conv: ConvolutionName | Callable[[int, int], nn.Module],
    in_channels: int,
    out_channels: int,
    *,
    edge_channels: int | None = None,
    degree_histogram: list[int] | None = None,
    heads: int = 1,
    train_eps: bool = False,
) -> nn.Module:
    r"""Build a message passing layer of PyTorch Geometric, by name or from a class.

    ======= ============================================================================================ ===========
    name    layer                                                                                        source
    ======= ============================================================================================ ===========
    gin     :math:`\mathrm{MLP}((1+\epsilon)x_i + \sum_j x_j)`, see :func:`gin_mlp`                       1810.00826
    gine    :math:`\mathrm{MLP}((1+\epsilon)x_i + \sum_j \mathrm{ReLU}(x_j + W e_{ji}))`                  1905.12265
    gcn     :math:`\sum_{j \in N(i) \cup i} W x_j / \sqrt{d_i d_j}`                                       1609.02907
    sage    :math:`W_1 x_i + W_2\, \mathrm{mean}_j\, x_j`, without the paper's division by the norm       1706.02216
    gat     attention over neighbours and the node itself; with edge features they enter the scores       1710.10903
    pna     mean, max, min, std times three degree scalers, one tower                                     2004.05718
    ======= ============================================================================================ ===========

    Arguments that a layer does not use are ignored, so that all of them may be given for any name.

    Args:
        conv: name of the layer, or a callable that builds one from the two widths alone, such as the class
            ``torch_geometric.nn.GraphConv`` or a partial of it.
        in_channels: width of the node features.
        out_channels: width of the new node features.
        edge_channels: width of the edge features; required by gine, used by gat and pna. None or 0: no features.
        degree_histogram: number of training nodes of in-degree 0, 1, 2, ...; required by pna.
        heads: number of attention heads of gat, which share ``out_channels``.
        train_eps: whether the weight of the node itself in gin and gine is learned; it starts at 0.

    Shape:
        x (N, in_channels), edge_index (2, E)[, edge_attr (E, edge_channels)] -> (N, out_channels)

    Raises:
        ValueError: if the name is unknown, or an argument that the layer needs is missing.
        TypeError: if ``conv`` is a layer instance, or does not return a layer.

    Example:
        >>> make_convolution("gat", 3, 8, heads=2)(torch.randn(4, 3), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([4, 8])
    """
    if isinstance(conv, nn.Module):
        raise TypeError(
            f"conv is an instance of {type(conv).__name__}; give its class, or a partial of it, since each "
            "layer of a network is built from its own two widths"
        )
    if callable(conv):
        layer = conv(in_channels, out_channels)
        if not isinstance(layer, nn.Module):
            raise TypeError(f"conv returned a {type(layer).__name__}; give a callable that builds a layer")
        return layer
    if conv not in _BUILDERS:
        raise ValueError(
            f"conv is {conv!r}; give one of {', '.join(_BUILDERS)}, or a class of layers that is built from two widths"
        )
    return _BUILDERS[conv](
        in_channels,
        out_channels,
        edge_channels=edge_channels or None,
        degree_histogram=degree_histogram,
        heads=heads,
        train_eps=train_eps,
    )
