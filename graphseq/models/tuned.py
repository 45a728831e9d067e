"""Classifiers on the hidden states of a pre-trained network, read by a side network."""

import inspect
from typing import Any, Literal

from torch import Tensor, nn

from graphseq.core import Recorded
from graphseq.models.transformer.classifier import pooled
from graphseq.nn import GraphPool, GraphTokens, SequenceTokens
from graphseq.nn.causal import positive
from graphseq.nn.tuning.frozen import check_statistics

__all__ = ["TunedGraphClassifier", "TunedSequenceClassifier"]


class _Tuned(nn.Module):
    """Base class: backbone, the module that reads its hidden states, and a linear head."""

    def __init__(self, backbone: nn.Module, side: nn.Module, out_channels: int) -> None:
        super().__init__()
        if not callable(getattr(backbone, "hidden_states", None)):
            raise TypeError(
                f"backbone is a {type(backbone).__name__} without hidden_states; give a transformer or a "
                "graphseq.models.GraphEncoder, also in graphseq.nn.Pretrained, Frozen or LoRA, or a module of your own "
                "with a method hidden_states(x) that returns the list of the hidden states"
            )
        if not isinstance(getattr(side, "out_channels", None), int):
            raise TypeError(
                f"side is a {type(side).__name__} without out_channels; give UniPT, LadderSide or LastState of "
                "graphseq.nn"
            )
        positive(out_channels=out_channels)
        check_statistics(backbone)
        self.backbone, self.side = backbone, side
        self.head = nn.Linear(side.out_channels, out_channels)  # type: ignore[arg-type]

    def reset_parameters(self) -> None:
        """Reinitialise the trained parts beside the backbone: the module that reads it, and the head."""
        if callable(reset := getattr(self.side, "reset_parameters", None)):
            reset()
        self.head.reset_parameters()

    def _hidden(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        hidden: list[Tensor] = self.backbone.hidden_states(*args, **kwargs)  # type: ignore[operator]
        return hidden


class TunedSequenceClassifier(Recorded, _Tuned):
    r"""One output for each sequence, from the hidden states of a pre-trained transformer.

    .. math:: y = W \operatorname{pool}_t\bigl(\operatorname{side}(H_0, \ldots, H_L)_t\bigr) + b

    The given parts decide what is trained. A frozen ``backbone`` with :class:`graphseq.nn.UniPT` is parallel tuning,
    with :class:`graphseq.nn.LadderSide` a ladder side network and with :class:`graphseq.nn.LastState` a linear probe;
    ``LastState`` on :class:`graphseq.nn.LoRA` is low-rank tuning, and on ``Pretrained(path, freeze=False)``
    fine-tuning.

    Source: arXiv 2308.14316, section 3. Differs from it: a linear head for classes.

    Args:
        backbone: network with ``hidden_states(x, lengths)``, or ``hidden_states(ids)`` of a causal one, such as
            :class:`graphseq.nn.Pretrained`.
        side: module ``(hidden states, tokens) -> features`` with ``out_channels``.
        out_channels: number of outputs.
        pool: summary of a sequence: the ``mean`` of its steps, the ``first`` or the ``last`` one.

    Shape:
        x (B, T, in_channels) or (B, T) int64, lengths (B,) -> (B, out_channels)

    Raises:
        TypeError: if the backbone has no ``hidden_states``, or ``side`` no ``out_channels``.
        ValueError: if an argument is outside its range, or a frozen backbone has batch norms that training would still
            update.

    Example:
        >>> import torch
        >>> from graphseq.models import TransformerLanguageModel
        >>> from graphseq.nn import BlockStack, CausalAttention, Frozen, SequenceBlock, UniPT
        >>> layers = BlockStack([SequenceBlock(CausalAttention(8))], repeats=2)
        >>> network = TunedSequenceClassifier(Frozen(TransformerLanguageModel(9, layers)), UniPT([8, 8, 8]), 3)
        >>> network(torch.randint(9, (2, 5)), torch.tensor([5, 2])).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        backbone: nn.Module,
        side: nn.Module,
        out_channels: int,
        pool: Literal["mean", "first", "last"] = "mean",
    ) -> None:
        super().__init__(backbone, side, out_channels)
        if pool not in ("mean", "first", "last"):
            raise ValueError(f"pool is {pool!r}; it must be 'mean', 'first' or 'last'")
        self.pool = pool
        taken = inspect.signature(backbone.hidden_states).parameters  # type: ignore[arg-type]
        self._takes_lengths = "lengths" in taken  # causal networks do not read padding, which comes last

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the outputs of all sequences.

        Args:
            x: features (B, T, in_channels), or token numbers (B, T).
            lengths: number of steps of each sequence, int64 (B,); None if all have T.
        """
        hidden = self._hidden(x, lengths) if self._takes_lengths else self._hidden(x)
        h = self.side(hidden, SequenceTokens(lengths))
        return self.head(pooled(h, lengths, self.pool))


class TunedGraphClassifier(Recorded, _Tuned):
    r"""One row of outputs for each graph, from the hidden states of a pre-trained graph encoder.

    .. math:: y_g = W \bigoplus_{i \in g} \operatorname{side}(H_0, \ldots, H_L)_i + b

    The given parts decide what is trained, as in :class:`TunedSequenceClassifier`.

    Source: arXiv 2308.14316, section 3. Differs from it: graphs in place of text and images; nodes are tokens.

    Args:
        backbone: encoder with ``hidden_states``, such as :class:`graphseq.nn.Pretrained` of a
            :class:`graphseq.models.GraphEncoder`.
        side: module ``(hidden states, tokens) -> features`` with ``out_channels``.
        out_channels: number K of classes or of predicted quantities.
        pool: reduction of the nodes of a graph: ``sum``, ``mean`` or ``max``.

    Shape:
        x (N, in_channels), edge_index (2, E), batch (N,), edge_attr (E, edge_channels), ptr (G+1,) -> (G, K)

    Raises:
        TypeError: if the backbone has no ``hidden_states``, or ``side`` no ``out_channels``.
        ValueError: if an argument is outside its range, or a frozen backbone has batch norms that training would still
            update.

    Example:
        >>> import torch
        >>> from graphseq.models import GraphEncoder
        >>> from graphseq.nn import EdgeInteraction, Frozen, UniPT
        >>> side = UniPT([3, 8, 8], interaction=EdgeInteraction())
        >>> network = TunedGraphClassifier(Frozen(GraphEncoder(3, 8, num_layers=2)), side, out_channels=2)
        >>> network(torch.randn(4, 3), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([1, 2])
    """

    def __init__(
        self, backbone: nn.Module, side: nn.Module, out_channels: int, pool: Literal["sum", "mean", "max"] = "mean"
    ) -> None:
        super().__init__(backbone, side, out_channels)
        self.pool = GraphPool(pool)

    def encode(
        self,
        x: Tensor,
        edge_index: Tensor,
        batch: Tensor | None = None,
        edge_attr: Tensor | None = None,
        ptr: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return graph vectors, the input of ``head``, and node vectors.

        Args:
            x: node features.
            edge_index: edges from row 0 to row 1.
            batch: graph of each node; without it and ``ptr`` all nodes are one graph.
            edge_attr: edge features.
            ptr: first node of each graph and, last, the number of nodes.
        """
        hidden = self._hidden(x, edge_index, batch, edge_attr, ptr)
        node = self.side(hidden, GraphTokens.of(len(hidden[0]), edge_index, batch, ptr))  # (N, side.out_channels)
        return self.pool(node, batch, ptr), node

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        batch: Tensor | None = None,
        edge_attr: Tensor | None = None,
        ptr: Tensor | None = None,
    ) -> Tensor:
        """Return one row of logits for each graph: (G, K)."""
        return self.head(self.encode(x, edge_index, batch, edge_attr, ptr)[0])
