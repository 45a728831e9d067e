"""Classification of videos by the mean of the scores of their clips."""

import math
from typing import Unpack

from torch import Tensor, nn

from graphseq.core.batches import apply_model, batch_field, batch_target
from graphseq.core.errors import DataError
from graphseq.tasks.base import Stage, Step, TaskOptions
from graphseq.tasks.supervised.classification import Classification

__all__ = ["VideoClassification"]


class VideoClassification(Classification):
    r"""Train a network on single clips, and classify a video by the mean of the probabilities of its clips.

    .. math::
        L = -\frac{1}{B M} \sum_{b, m} \log \operatorname{softmax}(f(x_{b m}))_{y_b}, \qquad
        p_b = \frac{1}{M} \sum_m \operatorname{softmax}(f(x_{b m}))

    In training each clip is a sample with the label of its video. Validation, test and prediction take the mean
    :math:`p_b`, and the loss that they log is :math:`-\log p_b` of the label.

    Source: arXiv 1711.10305, section 4.2, which averages over 20 clips of a video.

    Procedure:
        1. logits (B M, K) of all clips; 2. cross-entropy; 3. one step of the optimiser.

    Logs:
        ``<stage>/loss``; ``val/acc``, ``val/f1`` (macro) and the same for test, of whole videos.

    Args:
        model: network from clips (B, C, T, Y, X) to logits (B, K).
        num_outputs: number K of classes, at least 2.
        class_weights: weight of each class, see :class:`Classification`.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if an argument is out of range.
        DataError: in a step, if clips are not (B, M, C, T, Y, X), or (B, C, T, Y, X) for one clip of each video.

    Example:
        >>> import torch
        >>> from graphseq.models import P3DResNet
        >>> task = VideoClassification(P3DResNet(1, 8, layers=(1, 1, 1, 1), base_width=2), num_outputs=8)
        >>> videos = torch.rand(2, 3, 1, 4, 16, 16), torch.tensor([5, 1])
        >>> task.step(videos, "train").prediction.shape, task.step(videos, "val").prediction.shape
        (torch.Size([6, 8]), torch.Size([2, 8]))
    """

    def __init__(
        self,
        model: nn.Module,
        num_outputs: int,
        *,
        class_weights: list[float] | None = None,
        label_smoothing: float = 0.0,
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, num_outputs, class_weights=class_weights, label_smoothing=label_smoothing, **options)

    def clip_logits(self, batch: object) -> Tensor:
        """Return the logits of each clip, (B, M, K).

        Args:
            batch: tuple or dictionary with clips, ``x``, and labels.
        """
        clips = batch[0] if isinstance(batch, tuple | list) else batch_field(batch, "x")
        if not isinstance(clips, Tensor) or clips.dim() not in (5, 6):
            given = tuple(clips.shape) if isinstance(clips, Tensor) else type(clips).__name__
            raise DataError(
                f"clips are {given}; give (B, M, C, T, Y, X) with M clips of each video, or (B, C, T, Y, X) with one"
            )
        if clips.dim() == 5:
            clips = clips.unsqueeze(1)
        logits = apply_model(self.model, (clips.flatten(0, 1),))
        return logits.unflatten(0, clips.shape[:2])

    def forward(self, batch: object) -> Tensor:
        """Return the logarithm of the mean probabilities of each video, (B, K).

        Args:
            batch: tuple or dictionary with clips, ``x``, and labels.
        """
        log_scores = self.clip_logits(batch).log_softmax(-1)  # (B, M, K)
        return log_scores.logsumexp(1) - math.log(log_scores.shape[1])

    def step(self, batch: object, stage: Stage = "train") -> Step:
        """Return the cross-entropy of the clips in training, that of the mean scores of videos otherwise.

        Args:
            batch: tuple or dictionary with clips, ``x``, and labels.
            stage: stage of the run.
        """
        y = batch_target(batch)
        if stage == "train":
            logits = self.clip_logits(batch)
            given, y = logits.flatten(0, 1), y.repeat_interleave(logits.shape[1])
        else:
            given = self(batch)
        prediction, target = self.target_kind.align(given, y, self.model)
        loss, size = self.target_kind.loss(prediction, target, self.class_weights)
        return Step(loss, prediction, target, size)
