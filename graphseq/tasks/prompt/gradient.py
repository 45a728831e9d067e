"""Prompts for a frozen graph encoder that are learned together with the head, by gradients through the encoder."""

from collections.abc import Callable
from typing import Unpack

import torch
from torch import Tensor, nn

from graphseq.nn import GPF, EmbeddedGraphs
from graphseq.tasks.base import Stage
from graphseq.tasks.prompt.base import PromptOptions, PromptStep, PromptTask

__all__ = ["PromptTuning"]


class PromptTuning(PromptTask):
    r"""Adapt a frozen graph encoder: prompts that a module adds to node features, and a head, are trained together.

    .. math:: \min_{P, \theta} \sum_g \ell\bigl(\mathrm{head}_\theta(f(A_g, X_g + P(X_g, A_g))),\, y_g\bigr)

    Procedure:
        1. embed; 2. add the prompts of the module; 3. encode, with gradients through the frozen encoder; 4. head and
        loss; 5. one step of one optimiser for prompts and head.

    Logs:
        those of :class:`PromptTask`; ``train/loss``.

    Source: arXiv 2209.15240 (:class:`graphseq.nn.GPF`, :class:`graphseq.nn.GPFPlus`), 2402.10380
    (:class:`graphseq.nn.SUPT`), 2307.01504 (:class:`graphseq.nn.PromptTokens`). Differs from them: dropout and norms
    of the encoder stay in evaluation mode.

    Args:
        model: pre-trained encoder such as ``Pretrained(path)``; it is frozen here in any case.
        num_outputs: number of classes or labels, at least 2 for multiclass.
        prompt: callable from the width of the embedded features to a module from :class:`graphseq.nn.EmbeddedGraphs`
            to the prompt of each node (N, D); default :class:`graphseq.nn.GPF`.
        options: arguments of :class:`PromptTask`: kind of target, head and its optimiser.

    Raises:
        TypeError: if the encoder lacks ``embed`` or ``encode_embedded``, or ``prompt`` does not build a module.
        ValueError: if an argument is out of range.

    Example:
        >>> from graphseq.models import GraphEncoder
        >>> task = PromptTuning(GraphEncoder(3, 8), num_outputs=1)
        >>> graph = {"x": torch.ones(4, 3), "edge_index": torch.tensor([[0], [1]]), "y": torch.tensor([[1.0]])}
        >>> task.step(graph).prompt.shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        model: nn.Module,
        num_outputs: int,
        *,
        prompt: Callable[[int], nn.Module] | None = None,
        **options: Unpack[PromptOptions],
    ) -> None:
        super().__init__(model, num_outputs, **options)
        built = (GPF if prompt is None else prompt)(self.encoder.prompt_channels)
        if not isinstance(built, nn.Module):
            raise TypeError(
                f"prompt built a {type(built).__name__}; it must build a module, such as graphseq.nn.GPF does"
            )
        self.prompt = built

    def prompts(self, batch: object) -> tuple[EmbeddedGraphs, Tensor, Tensor]:
        """Return the graphs of a batch, the prompts of the module, and the order of the graphs, which is unchanged.

        Args:
            batch: PyG batch or dictionary with ``x`` and ``edge_index``; labels are not used.
        """
        graphs = EmbeddedGraphs.from_batch(self.encoder, batch)
        return graphs, self.prompt(graphs), torch.arange(len(graphs), device=graphs.h.device)

    def step(self, batch: object, stage: Stage = "train") -> PromptStep:
        """Return loss and predictions of the prompted graphs of a batch, and the prompts.

        Args:
            batch: PyG batch or dictionary with ``x``, ``edge_index`` and ``y``.
            stage: stage of the run; in training the decrease of the loss by the prompts is not computed.
        """
        if stage != "train":
            return super().step(batch, stage)
        graphs, prompt, _ = self.prompts(batch)
        target, known = self.targets(batch, len(graphs))
        prediction, target = self.target_kind.align(
            self.head(graphs.encode(self.encoder, prompt)[0]), target, self.head
        )
        loss, size = self.target_kind.loss(prediction, target)
        return PromptStep(
            loss,
            prediction,
            target,
            size,
            prompt=prompt,
            ptr=graphs.ptr,
            decrease=torch.zeros_like(known, dtype=loss.dtype),
            labelled=known,
        )
