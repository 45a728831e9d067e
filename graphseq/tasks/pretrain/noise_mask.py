"""Pre-training of a classifier under noise masks that a policy learns by REINFORCE."""

import copy
from typing import Any, Unpack

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torchmetrics import MetricCollection

from graphseq.core.batches import batch_field, batch_target
from graphseq.core.errors import DataError, UnsupportedStrategyError
from graphseq.core.protocols import DataSource
from graphseq.nn.policies.masks import BetaMaskPolicy, PerturbedImages
from graphseq.ops.losses.reinforcement import leave_one_out_mean, reinforce_loss
from graphseq.tasks.base import Stage, Step, Task, TaskOptions
from graphseq.tasks.objectives.classes import Classes
from graphseq.tasks.optimizers import build_optimizer, step_schedulers

__all__ = ["NoiseMaskPretraining"]

_STATISTICS_BATCH = 256  # images of a batch from which statistics of norms are estimated


class NoiseMaskPretraining(Task[Any]):
    r"""Pre-train a classifier on images under noise masks, drawn by a policy that learns to lower the loss.

    .. math::
        L_{\theta} = \frac{1}{B} \sum_b c_b, \quad c_b = -\log p_\theta(y_b \,|\, x_b \odot m_b), \qquad
        L_{\phi} = \frac{1}{B} \sum_b (c_b - v_b)\, \log \pi_\phi(m_b \,|\, x_b)

    with the costs constant in :math:`L_\phi` and the mean cost of the other images as the baseline :math:`v_b`. The
    gradient of the policy is that of REINFORCE, see :func:`graphseq.ops.reinforce_loss`; the classifier's is that of
    its cross-entropy alone.

    The result is ``heated``, the mean of the classifier's weights after each of the last epochs, with statistics of
    batch norms that are estimated anew on the unmasked training images. It is what fine-tuning starts from:
    ``Pretrained(path, part="heated", freeze=False)`` in a :class:`graphseq.tasks.Classification`, without policy and
    masks, at the cost of the plain network. Before the last epochs it is the classifier after the last epoch.

    Procedure, for each batch:
        1. the policy draws masks; 2. cross-entropy of the masked images; 3. one step of the classifier's optimiser and,
        if the policy has parameters, one of the policy's; with the last batch of each of the last epochs, ``heated`` is
        updated.

    Logs:
        ``<stage>/loss``; ``train/log_prob``, mean log-density of the masks; ``val/acc``, ``val/f1`` (macro) and the
        same for test, of images under the mean mask. They say little about the accuracy after fine-tuning.

    Source: arXiv 2406.14568 and its released code. Differs from it: the released loss is the product of cross-entropy
    and the logarithm of the *sum* of the densities of the cells, whose gradient is not that of the expected cost, and
    which multiplies the classifier's gradient by that logarithm; here it is REINFORCE, with a baseline. The statistics
    of batch norms are estimated for the averaged weights.

    Args:
        model: classifier of images whose output is logits.
        num_outputs: number of classes, at least 2.
        policy: module from images to :class:`graphseq.nn.PerturbedImages`; default :class:`graphseq.nn.BetaMaskPolicy`
            for images of one channel. Controls are :class:`graphseq.nn.RandomMask` and
            :class:`graphseq.nn.AdditiveNoise`.
        average_last: number of last epochs whose weights are averaged, at least 1.
        policy_optimizer: callable from the policy's parameters to an optimiser; default ``torch.optim.Adam``.
            ``optimizer`` is the classifier's; ``scheduler`` is for both.
        options: arguments of :class:`Task`.

    Raises:
        ValueError: if an argument is outside its range; when training starts, if the trainer has no ``max_epochs``.
        TypeError: when training starts, if the classifier has batch norms and the trainer no data module of graphseq;
            in a step, if the policy does not return :class:`graphseq.nn.PerturbedImages`.
        DataError: in a step, if the batch has no images, or labels are not class numbers or are out of range.
        UnsupportedStrategyError: if there are several processes.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        >>> task = NoiseMaskPretraining(network, num_outputs=3)
        >>> task.step((torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1]))).prediction.shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        model: nn.Module,
        num_outputs: int,
        *,
        policy: nn.Module | None = None,
        average_last: int = 3,
        policy_optimizer: OptimizerCallable | None = None,
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, **options)
        if average_last < 1:
            raise ValueError(f"average_last is {average_last}; it must be at least 1")
        self.automatic_optimization = False
        self.target_kind = Classes(num_outputs)
        self.num_outputs, self.average_last = num_outputs, average_last
        self.policy = BetaMaskPolicy() if policy is None else policy
        self.policy_optimizer = policy_optimizer
        self.learns = any(parameter.requires_grad for parameter in self.policy.parameters())
        self.heated = copy.deepcopy(model)

    def setup(self, stage: str) -> None:
        """Build the metrics; refuse several processes."""
        super().setup(stage)
        if self.trainer.world_size > 1:
            raise UnsupportedStrategyError(
                f"{type(self).__name__} runs in one process, {self.trainer.world_size} were given: each would follow "
                "base logits of its own; set devices=1"
            )

    def on_train_start(self) -> None:
        """Check that the last epochs are known, and that statistics of norms can be estimated."""
        super().on_train_start()
        self._num_averaged()
        if any(isinstance(layer, _BatchNorm) for layer in self.model.modules()) and not isinstance(
            self.datamodule, DataSource
        ):
            raise TypeError(
                f"{type(self.model).__name__} has batch norms, whose statistics are estimated for the averaged weights "
                "from the training split of a data module; give fit() a data module of graphseq"
            )

    def configure_metrics(self) -> MetricCollection:
        """Return accuracy and macro F1."""
        return self.target_kind.metrics()

    def configure_optimizers(self) -> Any:
        """Return the optimiser of the classifier and, if it has parameters, that of the policy."""
        found = [self.make_optimizer([each for each in self.model.parameters() if each.requires_grad])]
        if self.learns:
            learned = [each for each in self.policy.parameters() if each.requires_grad]
            found.append(build_optimizer(self.policy_optimizer, learned, self.policy))
        schedulers = [self.make_scheduler(optimizer) for optimizer in found]
        return found, [scheduler for scheduler in schedulers if scheduler is not None]

    def step(self, batch: object, stage: Stage = "train") -> Step:
        """Return the cross-entropy of the images under the masks of the policy.

        Args:
            batch: tuple or dictionary with images (B, C, Y, X), ``x``, and labels (B,), ``y``.
            stage: stage of the run; whether masks are drawn depends on the mode of the policy alone.
        """
        step, _, _ = self._costs(batch)
        return step

    def _costs(self, batch: Any) -> tuple[Step, Tensor, Tensor]:
        """Return the step, the cost of each image (B,), and the log-density of its mask (B,)."""
        found = self.policy(_images(batch))
        if not isinstance(found, PerturbedImages):
            raise TypeError(
                f"policy is a {type(self.policy).__name__} that returns a {type(found).__name__}; it must return "
                "graphseq.nn.PerturbedImages, images and log-densities"
            )
        images, log_prob = found
        logits, target = self.target_kind.align(self.model(images), batch_target(batch), self.model)
        cost = functional.cross_entropy(logits.float(), target, reduction="none")
        step = Step(cost.mean(), logits, target, len(target))
        return step, cost, log_prob

    def training_step(self, batch: object, batch_idx: int) -> None:  # type: ignore[override]  # steps by hand
        """Take a step of the classifier and one of the policy."""
        step, cost, log_prob = self._costs(batch)
        step.logged["log_prob"] = log_prob.mean()
        loss = self.total_loss(step, batch_idx)
        if self.learns:
            # the two losses share no parameter: one backward pass gives both gradients
            loss = loss + reinforce_loss(log_prob, cost.detach(), leave_one_out_mean(cost.detach()))
        found = self.optimizers()
        optimizers: list[Any] = found if isinstance(found, list) else [found]
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in optimizers:
            optimizer.step()
        self._finish(batch_idx)

    def _finish(self, batch_idx: int) -> None:
        step_schedulers(self, self.scheduler_interval, self.monitor)
        if self.trainer.is_last_batch:  # a run resumed from its last batch does not come to on_train_epoch_end
            self._heat(self._num_averaged())

    def on_train_epoch_end(self) -> None:
        """Step schedulers that watch a metric of validation, and raise if a loss of this epoch was not finite."""
        super().on_train_epoch_end()
        step_schedulers(self, self.scheduler_interval, self.monitor, epoch_end=True)

    # the intermediate network

    def _num_averaged(self) -> int:
        """Return the number of epochs that are averaged already."""
        total = self.trainer.max_epochs
        if total is None or total < 1:
            raise ValueError(
                f"max_epochs of the trainer is {total}; give the number of epochs, of which the last are averaged"
            )
        return max(0, self.current_epoch - max(0, total - self.average_last))

    @torch.no_grad()
    def _heat(self, averaged: int) -> None:
        """Add the weights of this epoch to the mean."""
        for mean, value in zip(self.heated.state_dict().values(), self.model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 / (averaged + 1)) if averaged else mean.copy_(value)
            else:
                mean.copy_(value)  # counts
        if self.current_epoch + 1 == self.trainer.max_epochs:
            self._estimate_statistics()

    def _estimate_statistics(self) -> None:
        """Take the statistics of batch norms from the training images, as they are under the averaged weights."""
        norms = [layer for layer in self.heated.modules() if isinstance(layer, _BatchNorm)]
        data = self.datamodule
        if not norms or not isinstance(data, DataSource):
            return
        modes = {module: module.training for module in self.heated.modules()}
        momenta = [norm.momentum for norm in norms]
        self.heated.eval()  # without dropout
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        for batch in self.prediction_batches(data, "train", _STATISTICS_BATCH):
            self.heated(_images(batch))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode


def _images(batch: object) -> Tensor:
    x = batch[0] if isinstance(batch, tuple | list) else batch_field(batch, "x")
    if not isinstance(x, Tensor):
        raise DataError(
            f"the batch is a {type(batch).__name__} without images; give a tuple of images (B, C, Y, X) and labels, or "
            "a dictionary with `x` and `y`"
        )
    return x
