"""Targets that are tokens of a text."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MetricCollection

from graphseq.core.errors import DataError
from graphseq.metrics.language import BitsPerCharacter
from graphseq.tasks.objectives.objective import Objective, check_outputs, wide

__all__ = ["Tokens"]


@dataclass(frozen=True)
class Tokens(Objective):
    r"""The next token at each position, without padding: cross-entropy; perplexity and bits per character.

    .. math:: L = -\frac{1}{|M|} \sum_{(b,t) \in M} \log \operatorname{softmax}(f_{bt})_{y_{bt}},
        \quad M = \{(b,t) : y_{bt} \neq \mathrm{ignore\_index}\}

    Bits per character is :math:`L / \log 2` where tokens are characters; for other tokens it is bits per token.

    Args:
        num_outputs: number of tokens K in the vocabulary, at least 2.
        ignore_index: target of positions that are ignored.

    Shape:
        output (B, T, K), target int64 (B, T)

    Raises:
        ValueError: if ``num_outputs`` is below 2; in a step, if the network's output is not (B, T, K).
        DataError: in a step, if the target is not an integer tensor (B, T), or out of range.

    Example:
        >>> loss, size = Tokens(4).loss(torch.zeros(1, 3, 4), torch.tensor([[0, 3, -100]]))
        >>> round(float(loss), 3), int(size)
        (1.386, 2)
    """

    num_outputs: int
    ignore_index: int = -100

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_outputs(self.num_outputs, 2, "token")

    def align(
        self, output: Tensor, target: Tensor, network: nn.Module, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return logits (B, T, K) and targets int64 (B, T) with ``ignore_index`` at padding.

        Args:
            output: output of the network.
            target: token ids, int64 (B, T).
            network: network, named in error messages.
            lengths: number of positions of each sequence that count, int64 (B,); None for all.
        """
        logits = wide(output, network)
        if logits.dim() != 3 or logits.size(2) != self.num_outputs:
            raise ValueError(
                f"{type(network).__name__} returned {tuple(logits.shape)}; logits of {self.num_outputs} tokens must be "
                f"(B, T, {self.num_outputs}). Set the network's last width to num_outputs"
            )
        if target.is_floating_point() or target.shape != logits.shape[:2]:
            raise DataError(
                f"target is {target.dtype} {tuple(target.shape)}; token ids must be integers {tuple(logits.shape[:2])}"
            )
        target = target.long()
        if lengths is not None:
            padding = torch.arange(target.size(1), device=target.device) >= lengths[:, None]  # (B, T)
            target = target.masked_fill(padding, self.ignore_index)
        # on a GPU the check would synchronise; there the loss kernel reports ids that are out of range
        if target.device.type == "cpu":
            wrong = ((target < 0) | (target >= self.num_outputs)) & (target != self.ignore_index)
            if bool(wrong.any()):
                raise DataError(
                    f"target holds {int(target[wrong][0])}; with num_outputs={self.num_outputs} token ids must be in "
                    f"0..{self.num_outputs - 1}, or {self.ignore_index} where nothing is to be predicted"
                )
        return logits, target

    def loss(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy over the positions that count, 0 if there are none, and their number.

        Args:
            prediction: logits (B, T, K).
            target: token ids, int64 (B, T).
        """
        total = functional.cross_entropy(
            prediction.flatten(0, 1), target.flatten(), ignore_index=self.ignore_index, reduction="sum"
        )
        size = (target != self.ignore_index).sum()
        return total / size.clamp(min=1), size

    def sample_losses(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the cross-entropies of each sequence, (B,), and its number of positions, (B,).

        Args:
            prediction: logits (B, T, K).
            target: token ids, int64 (B, T).
        """
        each = functional.cross_entropy(
            prediction.flatten(0, 1), target.flatten(), ignore_index=self.ignore_index, reduction="none"
        ).view(target.shape)  # (B, T)
        return each.sum(1), (target != self.ignore_index).sum(1).to(prediction.dtype)

    def metrics(self) -> MetricCollection:
        """Return perplexity ``ppl`` and bits per character ``bpc``."""
        return MetricCollection(
            {"ppl": _Perplexity(self.ignore_index), "bpc": BitsPerCharacter(self.ignore_index)},
            compute_groups=False,
        )


class _Perplexity(BitsPerCharacter):
    """Perplexity from sums of cross-entropies in float64.

    That of torchmetrics takes the logarithm of a softmax, which is 0 in float32 for an unlikely token, and so infinite.
    """

    def compute(self) -> Tensor:
        """Return the exponential of the mean cross-entropy; NaN without a position that counts."""
        return (self.total / self.count).exp().float()
