"""Base class of procedures that train a graph encoder without labels."""

from typing import Unpack

import torch
from torch import Generator, nn

from graphseq.core.protocols import PromptableEncoder, missing_members
from graphseq.nn import GraphView
from graphseq.tasks.base import Stage, Task, TaskOptions

__all__ = ["PretrainingTask"]

_EVALUATION_SEED = 0


class PretrainingTask(Task[object]):
    """Base of procedures that train a graph encoder without labels; a subclass defines ``step``.

    Labels of a batch are never read. The trained encoder is the part ``model`` of the checkpoint: another network takes
    it as ``Pretrained(path)``, frozen or not. Random choices in validation and test are the same in each epoch.

    Args:
        model: encoder in two parts, such as :class:`graphseq.models.GraphEncoder`.
        options: arguments of :class:`Task`.

    Raises:
        TypeError: if the encoder lacks ``embed`` or ``encode_embedded``.

    Example:
        >>> from graphseq.models import GraphEncoder
        >>> PretrainingTask(GraphEncoder(3, 8)).encoder.node_channels
        8
    """

    def __init__(self, model: nn.Module, **options: Unpack[TaskOptions]) -> None:
        super().__init__(model, **options)
        lacking = missing_members(model, PromptableEncoder)
        if lacking:
            raise TypeError(
                f"model is a {type(model).__name__} without {', '.join(lacking)}; give a graph encoder such as "
                "graphseq.models.GraphEncoder"
            )

    @property
    def encoder(self) -> PromptableEncoder:
        """The encoder that is trained."""
        return self.model  # type: ignore[return-value]  # checked by the constructor

    def embedded(self, batch: object) -> GraphView:
        """Return the graphs of a batch with embedded features.

        Args:
            batch: PyG graph or batch, or dictionary, with ``x`` and ``edge_index``.
        """
        return GraphView.from_batch(self.encoder, batch)

    def generator(self, stage: Stage, view: GraphView) -> Generator | None:
        """Return the source of random numbers of a step: torch's own in training, else one with a fixed seed.

        Args:
            stage: stage of the run.
            view: graphs of the step, on whose device numbers are drawn.
        """
        return None if stage == "train" else torch.Generator(view.h.device).manual_seed(_EVALUATION_SEED)
