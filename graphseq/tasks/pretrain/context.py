"""Context prediction: the neighbourhood of a node is matched with the ring of nodes around it."""

import copy
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.core.protocols import PromptableEncoder
from graphseq.nn import GraphView
from graphseq.ops import hop_distances, segment_sample, segment_sum
from graphseq.ops.graphs.graph_views import mask_positions
from graphseq.tasks.base import Stage, Step, TaskOptions
from graphseq.tasks.pretrain.base import PretrainingTask

__all__ = ["ContextPrediction"]


class ContextPrediction(PretrainingTask):
    r"""Train an encoder to recognise, from the neighbourhood of a node, the ring of nodes around it.

    .. math:: L = -\frac{1}{G} \sum_g \bigl(\log \sigma(h_g^\top c_g) + \log \sigma(-h_g^\top c_{g+1})\bigr)

    where :math:`h_g` is the vector of a random node of graph g, encoded from the nodes within K hops, and :math:`c_g`
    is the mean vector of the anchors, encoded by a second encoder that reads only the ring of nodes between :math:`r_1`
    and :math:`r_2` hops. Anchors are the nodes in both.

    Procedure:
        1. draw a node of each graph; 2. encode its neighbourhood and, by the second encoder, its ring; graphs too small
        for a ring are left out; 3. the loss above, with the ring of the next graph as negative pair; 4. one step of the
        optimiser for both encoders.

    Logs:
        ``<stage>/loss``.

    Source: arXiv 1905.12265, section 3.1.1. Differs from it: by default the second encoder is as deep as the first.

    Args:
        model: encoder such as :class:`graphseq.models.GraphEncoder`, with as many layers as ``num_hops``.
        num_hops: radius K of the neighbourhood in hops, at least 1.
        inner_hops: inner radius :math:`r_1` of the ring in hops, from 1 to ``num_hops``.
        outer_hops: outer radius :math:`r_2` of the ring in hops, above ``inner_hops``.
        context_model: encoder of the ring; None for one like ``model`` with other random weights.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if a radius is out of range.
        TypeError: if no ``context_model`` is given and ``model`` has no ``reset_parameters``.

    Example:
        >>> from graphseq.models import GraphEncoder
        >>> ring = torch.arange(12)
        >>> graphs = {"x": torch.randn(12, 2), "edge_index": torch.stack([ring, (ring // 6) * 6 + (ring + 1) % 6]),
        ...           "ptr": torch.tensor([0, 6, 12])}
        >>> int(ContextPrediction(GraphEncoder(2, 8, norm="none")).step(graphs).size)
        2
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        num_hops: int = 3,
        inner_hops: int = 2,
        outer_hops: int = 5,
        context_model: nn.Module | None = None,
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, **options)
        if not 1 <= inner_hops <= num_hops:
            raise ValueError(f"inner_hops is {inner_hops}; it must be from 1 to num_hops={num_hops}")
        if outer_hops <= inner_hops:
            raise ValueError(f"outer_hops is {outer_hops}; it must be above inner_hops={inner_hops}")
        self.num_hops, self.inner_hops, self.outer_hops = num_hops, inner_hops, outer_hops
        if context_model is None:
            reset = getattr(model, "reset_parameters", None)
            if reset is None:
                raise TypeError(f"{type(model).__name__} has no reset_parameters; give a context_model")
            context_model = copy.deepcopy(model)
            context_model.reset_parameters()  # type: ignore[operator]
        self.context_model = context_model

    @property
    def context_encoder(self) -> PromptableEncoder:
        """The encoder of the rings."""
        return self.context_model  # type: ignore[return-value]  # a copy of the encoder, or one like it

    def pairs(self, batch: object, centers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return vectors of centers (G, D), mean vectors of the anchors of their rings (G, D), and which have anchors.

        Args:
            batch: PyG graph or batch, or dictionary, with ``x`` and ``edge_index``.
            centers: one node of each graph, or N for a graph without nodes, int64 (G,).
        """
        view = self.embedded(batch)
        count = len(view.batch)
        # centers of graphs without nodes are one past the last
        distance = hop_distances(view.edge_index, centers, count + 1, max(self.num_hops, self.outer_hops))[:count]
        near = distance <= self.num_hops
        ring = (distance >= self.inner_hops) & (distance <= self.outer_hops)
        node = view.with_nodes(near).encode(self.encoder)[1]
        vector = node[(near.cumsum(0) - 1)[centers.clamp(max=count - 1)]]
        rings = GraphView.from_batch(self.context_encoder, batch).with_nodes(ring)
        if not len(rings.h):
            return vector, torch.zeros_like(vector), torch.zeros(len(vector), dtype=torch.bool, device=vector.device)
        around = rings.encode(self.context_encoder)[1]
        anchor = (distance[mask_positions(ring, len(around))] <= self.num_hops).to(around.dtype)
        counts = segment_sum(anchor, ptr=rings.ptr)
        context = segment_sum(around * anchor[:, None], ptr=rings.ptr) / counts.clamp(min=1)[:, None]
        return vector, context, counts > 0

    def step(self, batch: object, stage: Stage = "train") -> Step:
        """Return the loss of one node of each graph of a batch.

        Args:
            batch: PyG graph or batch, or dictionary, with ``x`` and ``edge_index``.
            stage: stage of the run; validation and test draw the same nodes in each epoch.
        """
        view = self.embedded(batch)
        weight = torch.zeros(len(view.batch), device=view.h.device)
        vector, context, known = self.pairs(batch, segment_sample(weight, view.ptr, self.generator(stage, view)))
        kept = mask_positions(known, int(known.sum()))  # waits for an accelerator, as do the two parts of each graph
        vector, context = vector[kept].float(), context[kept].float()
        positive = functional.softplus(-(vector * context).sum(1)).sum()
        negative = functional.softplus((vector * context.roll(1, 0)).sum(1)).sum()
        if len(vector) == 1:  # its own ring is no negative pair
            negative = 0 * negative
        return Step((positive + negative) / max(len(vector), 1), vector, context, len(vector))
