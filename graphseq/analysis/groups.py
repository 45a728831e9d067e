"""Group graph of a trained network: how strongly its groups of units are connected."""

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphseq.nn import GroupToGroupLinear

__all__ = ["group_graph", "group_modularity"]


@torch.no_grad()
def group_graph(model: nn.Module) -> Data:
    r"""Return the graph of the groups of all group-to-group layers of a network, as PyG data.

    A layer has a node for each of its source groups and for each of its target groups. Weights are edges from source to
    target group; where another layer follows, an edge joins a target group to each source group of the next layer that
    shares units with it; there are several where the layers group their units differently.

    Args:
        model: network with :class:`graphseq.nn.GroupToGroupLinear` layers, all with the same number of groups and
            registered in the order in which they are applied.

    Returns:
        ``Data`` with, for L layers of G groups, nodes (2 L G): ``layer``, ``side`` (0 source, 1 target) and ``group``;
        ``edge_index``; ``edge_kind`` (0 weights, 1 shared units); ``edge_attr`` (E, 2), for weights the share of those
        that exist and the mean of their magnitudes, for shared units their share of the target group, in both columns;
        ``strength`` (L, G, G), the sum of the magnitudes from each source group (last axis) to each target group;
        ``modularity`` (L,) of these, see :func:`group_modularity`.

    Raises:
        ValueError: if there is no such layer, or their numbers of groups differ.

    Example:
        >>> layers = nn.Sequential(GroupToGroupLinear(32, 32, 4), GroupToGroupLinear(32, 32, 4, grouping="interleaved"))
        >>> data = group_graph(layers)
        >>> data.num_nodes, data.strength.shape
        (16, torch.Size([2, 4, 4]))
    """
    layers = [layer for layer in model.modules() if isinstance(layer, GroupToGroupLinear)]
    groups = {layer.groups for layer in layers}
    if len(groups) != 1:
        raise ValueError(
            f"{type(model).__name__} has {len(layers)} group-to-group layers with {sorted(groups)} groups; at least "
            "one layer, and one number of groups, is needed"
        )
    (count,) = groups
    index, kind, attributes, strengths = [], [], [], []
    pairs = torch.cartesian_prod(torch.arange(count), torch.arange(count)).t()  # target and source, or the next
    for place, layer in enumerate(layers):
        weight, mask = layer.to_dense()
        out, into = (_indicator(labels, count) for labels in (layer.group_of_out, layer.group_of_in))
        mass = (out @ weight.abs().float() @ into.t()).cpu()  # (G, G), target and source
        number = (out @ mask.float() @ into.t()).cpu()
        size = (out.sum(1)[:, None] * into.sum(1)).cpu()
        first = 2 * place * count
        found = number[pairs[0], pairs[1]] > 0
        target, source = pairs[:, found]
        index.append(torch.stack([first + source, first + count + target]))
        values = (number / size, mass / number.clamp(min=1))
        attributes.append(torch.stack([value[target, source] for value in values], 1))
        kind.append(torch.zeros(len(target), dtype=torch.int64))
        strengths.append(mass)
        if place + 1 < len(layers) and len(layers[place + 1].group_of_in) == len(layer.group_of_out):
            shared = (out @ _indicator(layers[place + 1].group_of_in, count).t() / out.sum(1, keepdim=True)).cpu()
            before, after = pairs[:, shared[pairs[0], pairs[1]] > 0]
            index.append(torch.stack([first + count + before, first + 2 * count + after]))
            attributes.append(shared[before, after][:, None].expand(-1, 2))
            kind.append(torch.ones(len(before), dtype=torch.int64))
    nodes = torch.arange(2 * len(layers) * count)
    strength = torch.stack(strengths)
    return Data(
        num_nodes=len(nodes),
        layer=nodes // (2 * count),
        side=nodes // count % 2,
        group=nodes % count,
        edge_index=torch.cat(index, 1),
        edge_attr=torch.cat(attributes),
        edge_kind=torch.cat(kind),
        strength=strength,
        modularity=group_modularity(strength),
    )


def group_modularity(strength: Tensor) -> Tensor:
    r"""Return the modularity of a layer whose source and target groups of the same number belong together.

    .. math:: Q = \sum_g \left( e_{gg} - a_g b_g \right)

    with :math:`e` the strengths divided by their sum, and :math:`a`, :math:`b` its sums over sources and targets. It is
    :math:`1 - 1/G` for equal groups that are joined only to themselves, and 0 for equal strengths.

    Args:
        strength: strengths from source to target groups, at least 0 (*, G, G).

    Shape:
        (*,)

    Example:
        >>> group_modularity(torch.eye(4))
        tensor(0.7500)
    """
    share = strength / strength.sum((-2, -1), keepdim=True).clamp(min=torch.finfo(strength.dtype).tiny)
    return (share.diagonal(dim1=-2, dim2=-1) - share.sum(-1) * share.sum(-2)).sum(-1)


def _indicator(labels: Tensor, groups: int) -> Tensor:
    """Return the units of each group as rows of ones (G, units)."""
    return nn.functional.one_hot(labels, groups).t().float()
