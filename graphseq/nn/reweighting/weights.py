"""Weights of training samples that are learned, and the queue of representations they are learned on."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from graphseq.core import DataError, Elastic, Recorded

__all__ = ["FeatureQueue", "SampleWeights"]


class SampleWeights(Recorded, Elastic):
    r"""One learned number for each sample, turned into positive weights of mean 1 over the samples at hand.

    .. math::
        \tilde w_n = |S| \frac{e^{a_n}}{\sum_{m \in S} e^{a_m}}, \qquad
        w_n = 1 + s\,(\tilde w_n - 1), \quad
        s = \min\Bigl(1, \sqrt{\tfrac{1 / \mathrm{ESS}_{\min} - 1}{\operatorname{mean}(\tilde w - 1)^2}}\Bigr)

    Since :math:`1 / \mathrm{ESS} = 1 + \operatorname{mean}(w - 1)^2` for weights of mean 1, :math:`s` is the largest
    factor that keeps the effective sample size at :math:`\mathrm{ESS}_{\min}`. Equal numbers give weights of exactly 1.

    The numbers are a parameter, for an optimiser of their own; :meth:`logits` has a sparse gradient, so that a step
    of ``torch.optim.SparseAdam`` costs what the batch costs, whatever the number of samples.

    Source: arXiv 2312.12475. Differs from it: it does not say how weights stay positive, and has no
    bound on the effective sample size; its code starts from equal weights in each batch and remembers nothing.

    Args:
        num_samples: number of samples; None where :meth:`materialize` or a checkpoint sets it later.
        ess_min: smallest allowed effective sample size, as a share of the samples at hand, in [0, 1); 0 for no bound.

    Shape:
        idx (B,) -> (B,)

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> weights = SampleWeights(num_samples=5)
        >>> weights(torch.tensor([4, 0, 2]))
        tensor([1., 1., 1.], grad_fn=...)
    """

    logit: nn.Parameter

    def __init__(self, num_samples: int | None = None, ess_min: float = 0.2) -> None:
        super().__init__()
        if num_samples is not None and num_samples < 1:
            raise ValueError(f"num_samples is {num_samples}; it must be at least 1, or None until it is known")
        if not 0 <= ess_min < 1:
            raise ValueError(f"ess_min is {ess_min}; it must be in [0, 1), where 0 is no bound")
        self.ess_min = ess_min
        self.logit = nn.Parameter(torch.zeros(num_samples or 0))

    @property
    def num_samples(self) -> int:
        """Number of samples, 0 until it is known."""
        return len(self.logit)

    def reset_parameters(self) -> None:
        """Make all weights equal."""
        nn.init.zeros_(self.logit)

    def materialize(self, num_samples: int) -> None:
        """Set the number of samples, unless it is set already.

        Args:
            num_samples: number of samples in the data set, at least 1.

        Raises:
            DataError: if another number is set.
        """
        if self.num_samples not in (0, num_samples):
            raise DataError(
                f"there are weights of {self.num_samples} samples and data of {num_samples}; give the number of "
                "samples that `idx` counts, or leave it out"
            )
        if self.num_samples == 0:
            self.logit = nn.Parameter(self.logit.new_zeros(num_samples))

    def make_room(self, saved: Mapping[str, Tensor]) -> None:
        """Allocate the saved number of samples where it is not known yet; another number stays a difference.

        Args:
            saved: tensors of a saved state by name.
        """
        if self.num_samples == 0 and "logit" in saved:
            self.logit = nn.Parameter(self.logit.new_zeros(saved["logit"].shape))

    def logits(self, idx: Tensor) -> Tensor:
        """Return the numbers of some samples, (B,), with a sparse gradient.

        Args:
            idx: positions of the samples in the data set, int64 (B,).

        Raises:
            DataError: if a sample is out of range; on a GPU the look-up itself reports it.
        """
        if idx.dim() != 1 or idx.dtype != torch.int64:
            raise DataError(f"idx is {idx.dtype} {tuple(idx.shape)}; it must be int64 of shape (B,)")
        # on a device the check would wait for it
        if idx.device.type == "cpu" and len(idx) and not 0 <= int(idx.min()) <= int(idx.max()) < self.num_samples:
            raise DataError(
                f"idx reaches from {int(idx.min())} to {int(idx.max())}, and there are weights of "
                f"{self.num_samples} samples; idx must be the position of each sample in one data set"
            )
        return torch.gather(self.logit, 0, idx, sparse_grad=True)

    def normalize(self, logit: Tensor) -> Tensor:
        """Return weights of mean 1 before the bound on the effective sample size.

        Args:
            logit: learned numbers of the samples at hand, (S,).
        """
        # not softmax: equal numbers must give exactly 1
        exponential = (logit - logit.detach().max()).exp()
        return exponential / exponential.mean()

    def bound(self, weight: Tensor) -> Tensor:
        """Return weights pulled towards 1 as far as the least effective sample size demands.

        Args:
            weight: weights of mean 1, (S,).
        """
        if self.ess_min == 0:
            return weight
        limit = 1 / self.ess_min - 1
        spread = (weight - 1).square().mean()
        return torch.where(spread > limit, 1 + (weight - 1) * (limit / spread.clamp(min=limit)).sqrt(), weight)

    def forward(self, idx: Tensor, others: Tensor | None = None) -> Tensor:
        """Return the weights of some samples: (B,), or (B + M,) with others.

        Args:
            idx: positions of the samples in the data set, int64 (B,).
            others: learned numbers of further samples that the mean is taken over, (M,), such as those in a queue.
        """
        logit = self.logits(idx)
        if others is not None:
            logit = torch.cat([logit, others])
        return self.bound(self.normalize(logit))


class FeatureQueue(Recorded, Elastic):
    r"""Representations of the last batches and the numbers behind their weights, so that K batches count as one.

    ``fifo`` keeps the last :math:`K B` samples as they were; B is the size of the first batch. ``ema`` keeps K blocks
    of B rows, each moving towards every new batch at its own pace, row by row:

    .. math:: Z^{(k)} \leftarrow \alpha_k Z^{(k)} + (1 - \alpha_k) Z, \qquad \alpha_k = \alpha^{1 / k}, \quad k = 1..K

    and the same for the numbers. A batch with fewer rows moves the first rows of each block.

    Source: arXiv 2312.12475. Differs from it: the paper has ``ema`` alone, whose rows average samples
    that have nothing to do with each other, and so vary less than samples do; ``fifo`` is the default. Its
    :math:`\alpha_k` are not printed.

    Args:
        num_blocks: number K of batches kept, at least 0.
        mode: ``fifo`` keeps samples as they were, ``ema`` keeps moving averages.
        momentum: share :math:`\alpha` of the old average that the first block keeps, in [0, 1); only for ``ema``.

    Shape:
        z (B, D), logit (B,), env (B,)

    Raises:
        ValueError: if an argument is out of range, or the width of representations changes.

    Example:
        >>> queue = FeatureQueue(num_blocks=2)
        >>> for _ in range(5):
        ...     queue.push(torch.randn(3, 4), torch.zeros(3))
        >>> queue.z.shape
        torch.Size([6, 4])
    """

    elastic = ("z", "logit", "env")
    z: Tensor
    logit: Tensor
    env: Tensor

    def __init__(self, num_blocks: int = 4, mode: Literal["fifo", "ema"] = "fifo", momentum: float = 0.9) -> None:
        super().__init__()
        if num_blocks < 0:
            raise ValueError(f"num_blocks is {num_blocks}; it must be at least 0")
        if mode not in ("fifo", "ema"):
            raise ValueError(f"mode is {mode!r}; it must be 'fifo' or 'ema'")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum}; it must be in [0, 1)")
        self.num_blocks = num_blocks
        self.mode = mode
        self.momentum = momentum
        self.capacity = 0  # rows; the first batch decides
        self.register_buffer("z", torch.zeros(0, 0))
        self.register_buffer("logit", torch.zeros(0))
        self.register_buffer("env", torch.zeros(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.z)

    def get_extra_state(self) -> Tensor:
        """Return the capacity, for a checkpoint written before the queue is full."""
        return torch.tensor([self.capacity])

    def set_extra_state(self, state: Tensor) -> None:
        """Set the capacity.

        Args:
            state: what :meth:`get_extra_state` returned.
        """
        self.capacity = int(state)

    def push(self, z: Tensor, logit: Tensor, env: Tensor | None = None) -> None:
        """Take in a batch; nothing in the queue has a gradient.

        Args:
            z: representations of the batch, (B, D).
            logit: learned numbers behind the weights of its samples, (B,).
            env: environment of each sample, int64 (B,); only ``fifo`` keeps it.
        """
        if self.num_blocks == 0 or not len(z):
            return
        z, logit = z.detach(), logit.detach()
        env = torch.zeros(len(z), dtype=torch.int64, device=z.device) if env is None else env
        if len(self.z) and self.z.size(1) != z.size(1):
            raise ValueError(f"representations are {tuple(z.shape)}, those in the queue {tuple(self.z.shape)}")
        if self.capacity == 0:
            self.capacity = self.num_blocks * len(z)
            copies = self.num_blocks if self.mode == "ema" else 1
            self.z, self.logit, self.env = z.repeat(copies, 1), logit.repeat(copies), env.repeat(copies)
        elif self.mode == "fifo":
            self.z = torch.cat([self.z, z])[-self.capacity :]
            self.logit = torch.cat([self.logit, logit])[-self.capacity :]
            self.env = torch.cat([self.env, env])[-self.capacity :]
        else:
            self._average(z, logit)

    def _average(self, z: Tensor, logit: Tensor) -> None:
        rows = min(len(z), self.capacity // self.num_blocks)
        block = torch.arange(1, self.num_blocks + 1, dtype=z.dtype, device=z.device)
        step = 1 - self.momentum ** (1 / block)
        for old, new, pace in ((self.z, z, step[:, None, None]), (self.logit, logit, step[:, None])):
            blocks = old.view(self.num_blocks, -1, *old.shape[1:])[:, :rows]
            blocks.lerp_(new[:rows].to(old.dtype).expand_as(blocks), pace.to(old.dtype).expand_as(blocks))
