"""Edge prediction: hidden edges are distinguished from pairs of nodes without an edge."""

from typing import Unpack

from torch import nn

from graphseq.ops import link_loss, random_edges, random_non_edges
from graphseq.tasks.base import Stage, Step, TaskOptions
from graphseq.tasks.pretrain.base import PretrainingTask

__all__ = ["EdgePrediction"]


class EdgePrediction(PretrainingTask):
    r"""Train an encoder so that dot products of projected node vectors distinguish hidden edges from other pairs.

    .. math:: L = -\mathrm{mean}_{(u, v) \in P} \log \sigma(z_u^\top z_v)
        - \mathrm{mean}_{(u, v) \in N} \log \sigma(-z_u^\top z_v), \qquad z_i = W h_i + b

    Procedure:
        1. hide a share of the edges, both directions together; 2. encode without them; 3. for each hidden edge draw
        another node of the same graph that is not joined to its first node; 4. the loss above; 5. one step of the
        optimiser.

    Logs:
        ``<stage>/loss``.

    Source: arXiv 1611.07308; with hidden edges the masked edges of arXiv 2111.14064 (GPPT). Differs from them: a pair
    that turns out to be an edge is left out and not drawn again; node vectors pass through a linear layer, since dot
    products of vectors behind a ReLU are never negative.

    Args:
        model: encoder such as :class:`graphseq.models.GraphEncoder`.
        mask_share: probability that an edge is hidden, in [0, 1]; with 0 no edge is hidden and all are predicted.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if ``mask_share`` is out of range.

    Example:
        >>> import torch
        >>> from graphseq.models import GraphEncoder
        >>> graph = {"x": torch.ones(3, 2), "edge_index": torch.tensor([[0, 1], [1, 0]])}
        >>> EdgePrediction(GraphEncoder(2, 8)).step(graph).loss.dim()
        0
    """

    def __init__(self, model: nn.Module, *, mask_share: float = 0.15, **options: Unpack[TaskOptions]) -> None:
        super().__init__(model, **options)
        if not 0 <= mask_share <= 1:
            raise ValueError(f"mask_share is {mask_share}; it must be in [0, 1]")
        self.mask_share = mask_share
        self.projection = nn.Linear(self.encoder.node_channels, self.encoder.node_channels)

    def step(self, batch: object, stage: Stage = "train") -> Step:
        """Return the loss of the hidden edges of a batch.

        Args:
            batch: PyG graph or batch, or dictionary, with ``x`` and ``edge_index``.
            stage: stage of the run; validation and test hide the same edges in each epoch.
        """
        view = self.embedded(batch)
        generator = self.generator(stage, view)
        hidden = random_edges(view.edge_index, self.mask_share or 1.0, generator)
        pairs, valid = random_non_edges(view.edge_index, view.batch, view.ptr, generator)
        seen = view.with_edges(~hidden) if self.mask_share else view
        node = seen.encode(self.encoder)[1]
        loss = link_loss(self.projection(node).float(), view.edge_index, pairs, hidden, valid)
        return Step(loss, node, node, hidden.sum())
