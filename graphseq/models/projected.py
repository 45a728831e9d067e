"""Networks with a projection head behind their representation."""

from typing import Any

from torch import Tensor, nn

from graphseq.core import Recorded

__all__ = ["ProjectedClassifier", "ProjectedNetwork"]

_WIDTHS = ("encoded_features", "encoded_channels", "graph_channels")
"""Names under which networks tell the width of their representation."""


class ProjectedNetwork(Recorded, nn.Module):
    r"""Representation of a network, projected by a head that is removed after pre-training.

    .. math:: \text{before} = f(x), \qquad \text{after} = h(f(x))

    The representation is what ``network.encode`` returns, or the first entry of what it returns, so that images,
    sequences and graphs are encoded alike. A head of the network itself is not used and gets no gradient: set
    ``find_unused_parameters`` of :class:`torch.nn.parallel.DistributedDataParallel`. A later task takes the trained
    part by its path: ``Pretrained(path, part="model.network")``.

    Source: arXiv 2403.11391.

    Args:
        network: network with ``encode``, such as :class:`graphseq.models.MLP`, :class:`graphseq.models.ConvNet` or
            :class:`graphseq.models.GraphEncoder`.
        projection: head with ``in_features`` and ``out_features``, such as :class:`graphseq.nn.ProjectionHead`,
            :class:`graphseq.nn.FixedReweightingHead` or ``torch.nn.Linear``.

    Shape:
        inputs of the network -> (B, projection.out_features)

    Raises:
        TypeError: if the network has no ``encode``, or the head no ``in_features`` and ``out_features``.
        ValueError: if the head takes another width than that of the representation, where the network states it.

    Example:
        >>> import torch
        >>> from graphseq.models import MLP
        >>> from graphseq.nn import ProjectionHead
        >>> network = ProjectedNetwork(MLP(64, 10), ProjectionHead(128, out_features=16))
        >>> network(torch.randn(4, 1, 8, 8)).shape, network.encode(torch.randn(4, 1, 8, 8)).shape
        (torch.Size([4, 16]), torch.Size([4, 128]))
    """

    def __init__(self, network: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        if not callable(getattr(network, "encode", None)):
            raise TypeError(
                f"network is a {type(network).__name__} without encode, the method that returns its representation; "
                "give one such as graphseq.models.MLP, ConvNet or GraphEncoder"
            )
        widths = [getattr(projection, name, None) for name in ("in_features", "out_features")]
        if not all(isinstance(width, int) for width in widths):
            raise TypeError(
                f"projection is a {type(projection).__name__} without in_features and out_features; give one such as "
                "graphseq.nn.ProjectionHead, or FixedReweightingHead with ratio 1 for no head"
            )
        width = next((getattr(network, name) for name in _WIDTHS if hasattr(network, name)), widths[0])
        if width != widths[0]:
            raise ValueError(
                f"projection takes {widths[0]} features, the representation of the {type(network).__name__} has "
                f"{width}; set in_features={width}"
            )
        self.network = network
        self.projection = projection

    def encode(self, *inputs: Any, **fields: Any) -> Tensor:
        """Return the representation before the head (B, D).

        Args:
            inputs: arguments of the network's ``encode``.
            fields: arguments by name.
        """
        encoded = self.network.encode(*inputs, **fields)  # type: ignore[operator]  # checked by the constructor
        first: Tensor = encoded[0] if isinstance(encoded, tuple) else encoded
        return first

    # names no argument, so that batches are read by the arguments of the network within
    def forward(self, *inputs: Any, **fields: Any) -> Tensor:
        """Return the projection (B, out_features).

        Args:
            inputs: arguments of the network's ``encode``.
            fields: arguments by name.
        """
        projected: Tensor = self.projection(self.encode(*inputs, **fields))
        return projected


class ProjectedClassifier(ProjectedNetwork):
    r"""Linear classifier on the projection of a network's representation: supervised training with a projection head.

    .. math:: y = W h(f(x)) + b

    With ``Pretrained(path, part="model.network")`` as network and ``FixedReweightingHead(D, ratio=1)`` as head, which
    changes nothing, it is a linear classifier on a pre-trained representation.

    Source: arXiv 2403.11391.

    Args:
        network: network with ``encode``, see :class:`ProjectedNetwork`.
        projection: head with ``in_features`` and ``out_features``.
        out_features: number of classes or labels.

    Shape:
        inputs of the network -> (B, out_features)

    Raises:
        TypeError: see :class:`ProjectedNetwork`.
        ValueError: if ``out_features`` is below 1, or widths differ.

    Example:
        >>> import torch
        >>> from graphseq.models import GraphEncoder
        >>> from graphseq.nn import FixedReweightingHead
        >>> network = ProjectedClassifier(GraphEncoder(3, 8), FixedReweightingHead(8), out_features=2)
        >>> network(x=torch.randn(4, 3), edge_index=torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([1, 2])
    """

    def __init__(self, network: nn.Module, projection: nn.Module, out_features: int) -> None:
        super().__init__(network, projection)
        if out_features < 1:
            raise ValueError(f"out_features is {out_features}; it must be at least 1")
        self.head = nn.Linear(int(projection.out_features), out_features)  # type: ignore[arg-type]  # checked above

    def forward(self, *inputs: Any, **fields: Any) -> Tensor:
        """Return the outputs, logits for a classification.

        Args:
            inputs: arguments of the network's ``encode``.
            fields: arguments by name.
        """
        return self.head(super().forward(*inputs, **fields))
