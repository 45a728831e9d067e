"""Learned weights of training samples, and the queue of representations they are learned on."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from graphseq.core import DataError, Elastic, Recorded

__all__ = ["FeatureQueue", "SampleWeights"]


class SampleWeights(Recorded, Elastic):
    r"""One learned logit for each sample, mapped to positive weights of mean 1 over a set of samples.

    .. math::
        \tilde w_n = |S| \frac{e^{a_n}}{\sum_{m \in S} e^{a_m}}, \qquad
        w_n = 1 + s\,(\tilde w_n - 1), \quad
        s = \min\Bigl(1, \sqrt{\tfrac{1 / \mathrm{ESS}_{\min} - 1}{\operatorname{mean}(\tilde w - 1)^2}}\Bigr)

    Since :math:`1 / \mathrm{ESS} = 1 + \operatorname{mean}(w - 1)^2` for weights of mean 1, :math:`s` is the largest
    factor that keeps the effective sample size at :math:`\mathrm{ESS}_{\min}`. Equal logits give weights of exactly 1.

    The logits are a parameter for a separate optimiser; :meth:`logits` has a sparse gradient, so that the cost of a
    step of ``torch.optim.SparseAdam`` depends on the batch and not on the number of samples.

    Source: arXiv 2312.12475. Differs from it: the paper does not say how weights are kept positive, and has no
    bound on the effective sample size; its code starts from equal weights in each batch and does not store them.

    Args:
        num_samples: number of samples; None if :meth:`materialize` or a checkpoint sets it later.
        ess_min: smallest allowed effective sample size, as a share of the number of samples, in [0, 1); 0 for no bound.

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
            DataError: if a different number is already set.
        """
        if self.num_samples not in (0, num_samples):
            raise DataError(
                f"there are weights of {self.num_samples} samples, but the data have {num_samples}; give the number of "
                "samples that `idx` counts, or leave it out"
            )
        if self.num_samples == 0:
            self.logit = nn.Parameter(self.logit.new_zeros(num_samples))

    def make_room(self, saved: Mapping[str, Tensor]) -> None:
        """Allocate the saved number of samples if none is set; a different number remains a mismatch.

        Args:
            saved: tensors of a saved state by name.
        """
        if self.num_samples == 0 and "logit" in saved:
            self.logit = nn.Parameter(self.logit.new_zeros(saved["logit"].shape))

    def logits(self, idx: Tensor) -> Tensor:
        """Return the logits of some samples, (B,), with a sparse gradient.

        Args:
            idx: positions of the samples in the data set, int64 (B,).

        Raises:
            DataError: if a sample is out of range; on a GPU the lookup kernel reports it.
        """
        if idx.dim() != 1 or idx.dtype != torch.int64:
            raise DataError(f"idx is {idx.dtype} {tuple(idx.shape)}; it must be int64 of shape (B,)")
        # on a GPU the check would synchronise
        if idx.device.type == "cpu" and len(idx) and not 0 <= int(idx.min()) <= int(idx.max()) < self.num_samples:
            raise DataError(
                f"idx ranges from {int(idx.min())} to {int(idx.max())}, and there are weights of "
                f"{self.num_samples} samples; idx must be the position of each sample in one data set"
            )
        return torch.gather(self.logit, 0, idx, sparse_grad=True)

    def normalize(self, logit: Tensor) -> Tensor:
        """Return weights of mean 1 before the bound on the effective sample size.

        Args:
            logit: logits of the samples, (S,).
        """
        if not len(logit):
            return logit  # no sample, no largest logit
        # not softmax: equal logits must give exactly 1
        exponential = (logit - logit.detach().max()).exp()
        return exponential / exponential.mean()

    def bound(self, weight: Tensor) -> Tensor:
        """Return weights shrunk towards 1 until the effective sample size reaches its bound.

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
            others: logits of further samples to include in the mean, (M,), such as those in a queue.
        """
        logit = self.logits(idx)
        if others is not None:
            logit = torch.cat([logit, others])  # (B + M,)
        return self.bound(self.normalize(logit))


class FeatureQueue(Recorded, Elastic):
    r"""Representations of the last K batches and the logits of their weights.

    ``fifo`` keeps the last :math:`K B` samples; B is the size of the first batch. ``ema`` keeps K blocks
    of B rows, moving averages of the batches with different rates, row by row:

    .. math:: Z^{(k)} \leftarrow \alpha_k Z^{(k)} + (1 - \alpha_k) Z, \qquad \alpha_k = \alpha^{1 / k}, \quad k = 1..K

    and the same for the logits. A batch with fewer rows updates the first rows of each block.

    Source: arXiv 2312.12475. Differs from it: the paper has only ``ema``, whose rows average unrelated
    samples and so vary less than samples do; ``fifo`` is the default. The paper does not give its :math:`\alpha_k`.

    Args:
        num_blocks: number K of batches kept, at least 0.
        mode: ``fifo`` to keep samples, ``ema`` to keep moving averages.
        momentum: share :math:`\alpha` of the old average that the first block keeps, in [0, 1); only for ``ema``.

    Shape:
        z (B, D), logit (B,), env (B,)

    Raises:
        ValueError: if an argument is out of range, the width of representations changes, or shapes do not fit.

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
        """Return the capacity, which a checkpoint of a queue that is not full needs."""
        return torch.tensor([self.capacity])

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the capacity.

        Args:
            state: state that :meth:`get_extra_state` returned.
        """
        self.capacity = int(state)

    def push(self, z: Tensor, logit: Tensor, env: Tensor | None = None) -> None:
        """Append a batch; tensors in the queue are detached.

        Args:
            z: representations of the batch, (B, D).
            logit: logits of the weights of its samples, (B,).
            env: environment of each sample, int64 (B,); only ``fifo`` keeps it.
        """
        if z.dim() != 2 or logit.shape != z.shape[:1] or (env is not None and env.shape != z.shape[:1]):
            raise ValueError(
                f"representations are {tuple(z.shape)}, logits {tuple(logit.shape)}, environments "
                f"{None if env is None else tuple(env.shape)}; (B, D), (B,) and (B,) are needed, one row for each "
                "sample"
            )
        if self.num_blocks == 0 or not len(z):
            return
        z, logit = z.detach(), logit.detach()
        env = torch.zeros(len(z), dtype=torch.int64, device=z.device) if env is None else env
        if len(self.z) and self.z.size(1) != z.size(1):
            raise ValueError(
                f"representations are {tuple(z.shape)} and those in the queue {tuple(self.z.shape)}; give one width"
            )
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
            blocks = old.view(self.num_blocks, -1, *old.shape[1:])[:, :rows]  # (K, rows, D) or (K, rows)
            blocks.lerp_(new[:rows].to(old.dtype).expand_as(blocks), pace.to(old.dtype).expand_as(blocks))
