"""Training of a network together with weights of its training samples."""

from dataclasses import replace
from typing import Any, Unpack, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from graphseq.core.batches import sample_positions
from graphseq.core.errors import DataError, UnsupportedStrategyError
from graphseq.core.protocols import DataSource
from graphseq.nn.reweighting.outer import DecorrelationOuter, OuterBatch
from graphseq.nn.reweighting.weights import FeatureQueue, SampleWeights
from graphseq.ops.losses.decorrelation import effective_sample_size
from graphseq.tasks.base import Step
from graphseq.tasks.optimizers import check_epsilon, step_schedulers
from graphseq.tasks.supervised.samples import SampleLosses, SampleOptions, SampleTask, required_field
from graphseq.tasks.weighted.virtual import VirtualLearners, warn_of_equal_distribution

__all__ = ["Reweighted"]

_CHECKED_AT_ONCE = 4096
_ENV = "environment of each sample, int64 (B,), for clusters by environment; or use source='groups'"


class Reweighted(SampleTask):
    r"""Alternately train a network and weights of its training samples: a bi-level procedure.

    .. math::
        \min_W L_{\mathrm{out}}(\theta^*(W), W) + \beta \operatorname{mean}(w - 1)^2, \qquad
        \theta^*(W) = \arg\min_\theta \sum_n w_n s_n(\theta) \Big/ \sum_n c_n

    The objective of the weights is the argument ``outer``: :class:`graphseq.nn.DecorrelationOuter`
    (weights under which variables of the representation are independent; the first-order rule of the paper) or
    :class:`graphseq.nn.UnrolledOuter` (weights under which virtual steps lower the validation loss). With
    ``held_out=0`` the former is plain alternation on the training batch, and with ``num_clusters="all"`` as well the
    objective of StableNet and OOD-GNN. An object of your own has ``forward(batch) -> (loss, logged)``, where
    ``batch`` is a ``graphseq.nn.reweighting.outer.OuterBatch``.

    Weights have mean 1 over the batch and the queue. They are used only in training.

    Procedure:
        1. The batch is passed through the network. After ``start_epoch``, a share ``held_out`` of it, drawn at
           random, is left out of the loss of the network if the outer objective decorrelates.
        2. ``weight_steps`` steps of the weights on the outer objective, at the parameters after step 3 of the
           previous batch; representations and parameters are fixed. Clusters are recomputed when due, from a full
           queue.
        3. One step of the network on the weighted loss of the rest.
        4. The representations are appended to the queue.

    The weights have an optimiser of their own and are in the checkpoint, as are the queue, the clusters and the
    generator of all random numbers of steps 1 and 2. Training with a single cluster and ``held_out=0`` gives exactly
    the numbers of :class:`Classification`. Both optimisers count in ``global_step``: ``weight_steps + 1`` for each
    batch.

    Logs:
        ``<stage>/loss`` (weighted in training) and the metrics of :class:`Classification` or :class:`Regression`;
        ``train/ess``, ``train/weight_min``, ``train/weight_max`` over batch and queue; ``train/decorrelation`` and
        ``train/validation`` if the outer objective has them.

    Source: arXiv 2312.12475. Differs from it: representations that the weights are learned on are those
    of training samples held out of the step, since weights of training samples say nothing of others; momentum
    averages of samples are an option of the queue; weights are bounded below in their effective sample size.

    Args:
        model: network with a module ``head`` that maps one vector for each sample to outputs.
        num_outputs: number K of classes, labels or quantities, at least 1; at least 2 for multiclass.
        outer: objective of the weights; default ``DecorrelationOuter()``.
        weights: module with the learned weights; default ``SampleWeights()``, which takes the number of samples from
            the data module's store.
        queue: queue of the representations of the last batches; default ``FeatureQueue()``; ``FeatureQueue(0)`` for no
            queue.
        held_out: share of each batch that is used for the weights only, in [0, 1).
        beta: factor :math:`\beta` of the second term, at least 0; that term is 1 / ESS - 1 before the bound on the
            effective sample size ESS.
        weight_steps: number of steps of the weights for each batch, at least 1.
        start_epoch: number of epochs with equal weights before weights are learned, at least 0.
        recluster_every: number of epochs after which clusters are recomputed, at least 1.
        weight_optimizer: callable from parameters to the optimiser of the weights, which must accept sparse gradients;
            default ``torch.optim.SparseAdam(lr=0.05)``.
        options: arguments of :class:`SampleTask` and :class:`Task`; optimiser and scheduler are those of the network.

    Raises:
        ValueError: if an argument is out of range, or environments are combined with a queue of averaged samples.
        DataError: in a run, if the positions of samples are not known or out of range, if there are too few to find
            clusters from, or if the outer objective needs validation data and there are none.
        UnsupportedStrategyError: at the start of a run with several processes.

    Example:
        >>> from graphseq.models import GraphClassifier
        >>> task = Reweighted(GraphClassifier(3, 2), num_outputs=2, weights=SampleWeights(num_samples=9))
        >>> graph = {"x": torch.ones(4, 3), "edge_index": torch.tensor([[0], [1]]), "y": torch.tensor([1])}
        >>> task.step({**graph, "idx": torch.tensor([8])}).prediction.shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        model: nn.Module,
        num_outputs: int,
        *,
        outer: nn.Module | None = None,
        weights: SampleWeights | None = None,
        queue: FeatureQueue | None = None,
        held_out: float = 0.2,
        beta: float = 0.01,
        weight_steps: int = 1,
        start_epoch: int = 3,
        recluster_every: int = 1,
        weight_optimizer: OptimizerCallable | None = None,
        **options: Unpack[SampleOptions],
    ) -> None:
        super().__init__(model, num_outputs, **options)
        if not 0 <= held_out < 1:
            raise ValueError(f"held_out is {held_out}; it must be in [0, 1)")
        for name, value, least in (
            ("beta", beta, 0),
            ("weight_steps", weight_steps, 1),
            ("start_epoch", start_epoch, 0),
            ("recluster_every", recluster_every, 1),
        ):
            if not value >= least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        self.automatic_optimization = False
        self.outer = DecorrelationOuter() if outer is None else outer
        self.weights = SampleWeights() if weights is None else weights
        self.queue = FeatureQueue() if queue is None else queue
        if self._by_environment and self.queue.num_blocks and self.queue.mode == "ema":
            raise ValueError(
                "source='environments' with a queue of mode='ema': averaged samples have no environment; use "
                "mode='fifo'"
            )
        self.held_out = held_out
        self.beta = beta
        self.weight_steps = weight_steps
        self.start_epoch = start_epoch
        self.recluster_every = recluster_every
        self.weight_optimizer = weight_optimizer
        # a separate generator, so that the network's dropout does not depend on it; seeded by the global one
        self._generator = torch.Generator().manual_seed(torch.initial_seed() % 2**63)

    # state

    def get_extra_state(self) -> Tensor:
        """Return the state of the task's own generator."""
        return self._generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Set the state of the task's own generator.

        Args:
            state: state that :meth:`get_extra_state` returned.
        """
        self._generator.set_state(state.cpu())

    def _trait(self, name: str, default: object) -> object:
        return getattr(self.outer, name, default)  # an objective of a user's own may have forward alone

    @property
    def _decorrelation(self) -> DecorrelationOuter | None:
        found = self._trait("decorrelation", None)
        return found if isinstance(found, DecorrelationOuter) else None

    @property
    def _by_environment(self) -> bool:
        return self._decorrelation is not None and self._decorrelation.source == "environments"

    # start of a run

    def setup(self, stage: str) -> None:
        """Refuse several processes, set the number of samples, and build the metrics."""
        super().setup(stage)
        if stage != "fit":
            return
        if self.trainer.world_size > 1:
            raise UnsupportedStrategyError(
                f"{type(self).__name__} runs on one process, {self.trainer.world_size} were given: each would learn "
                "other weights from a queue of its own. Use devices=1"
            )
        if self._is_averaged and not self.weights.num_samples:
            raise UnsupportedStrategyError(
                "the callback that averages weights has copied the task before the number of samples is known; give "
                "weights=graphseq.nn.SampleWeights(num_samples=...), the number of samples in the data set"
            )
        data = self.datamodule if isinstance(self.datamodule, DataSource) else None
        if data is not None:
            _check_positions(data.store)
            self.weights.materialize(len(data.store))
        elif not self.weights.num_samples:
            raise DataError(
                "the number of samples is not known without a data module of graphseq; give "
                "weights=graphseq.nn.SampleWeights(num_samples=...), the number that `idx` counts"
            )
        if self._trait("needs_validation", False):
            if data is None or not len(data.splits["val"]):
                raise DataError(
                    f"{type(self.outer).__name__} needs validation samples, and there are none; use a data module of "
                    "graphseq with a validation split, or DecorrelationOuter"
                )
            warn_of_equal_distribution(data)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser and scheduler of the network, and the optimiser of the weights."""
        logit = self.weights.logit
        network = self.make_optimizer([p for p in self.parameters() if p.requires_grad and p is not logit])
        scheduler = self.make_scheduler(network)
        if self.weight_optimizer is None:
            weights: torch.optim.Optimizer = torch.optim.SparseAdam([logit], lr=0.05)
        else:
            weights = self.weight_optimizer([logit])
        check_epsilon(weights, replace=self.weight_optimizer is None)
        if scheduler is None:
            return [network, weights]
        # stepped by hand, so that nothing of Lightning's table of schedulers applies
        return [{"optimizer": network, "lr_scheduler": scheduler}, {"optimizer": weights}]  # type: ignore[return-value]

    def _both_optimizers(self) -> tuple[LightningOptimizer, LightningOptimizer]:
        network, weights = cast(list[LightningOptimizer], self.optimizers())
        return network, weights

    # training

    def training_loss(self, losses: SampleLosses, held: Tensor | None = None) -> Step:
        """Return the step with the weighted loss of the samples that are not held out.

        Args:
            losses: losses of the samples of a batch with known positions in the data set.
            held: positions in the batch of the samples held out, int64; None for no sample.
        """
        terms, sizes = losses.terms, losses.sizes
        with torch.no_grad():
            weight = self.weights(_positions(losses), self.queue.logit)
        share = weight[: len(terms)].to(terms.dtype)
        if held is not None:
            kept = torch.ones_like(share).index_fill(0, held, 0)
            share, sizes = share * kept, sizes * kept
        size = sizes.sum()
        loss = (share * terms).sum() / size.clamp(min=1)
        logged = {"ess": effective_sample_size(weight), "weight_min": weight.min(), "weight_max": weight.max()}
        return Step(loss, losses.prediction, losses.target, size, logged)

    def training_step(self, batch: object, batch_idx: int) -> Tensor:
        """Step the weights, then the network, on one batch."""
        losses = self.losses_of(batch)
        idx = _positions(losses)
        env = required_field(batch, "env", _ENV) if self._by_environment else None
        z = losses.representation.detach()
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        held: Tensor | None = None
        logged: dict[str, Tensor] = {}
        if self.current_epoch >= self.start_epoch:
            self._recluster(z, env)
            if self._trait("ready", True):
                held, logged = self._step_weights(losses, z, idx)
        step = self.training_loss(losses, held)
        loss = self.total_loss(replace(step, logged={**step.logged, **logged}), batch_idx)
        network, _ = self._both_optimizers()
        network.zero_grad()
        self.manual_backward(loss)
        network.step()
        self.queue.push(z, self.weights.logit.detach()[idx], env)
        step_schedulers(self, self.scheduler_interval, self.monitor)
        return loss.detach()

    def _recluster(self, z: Tensor, env: Tensor | None) -> None:
        decorrelation = self._decorrelation
        if decorrelation is None or not decorrelation.searches:
            return
        period = (self.current_epoch - self.start_epoch) // self.recluster_every
        if decorrelation.epoch >= self.start_epoch + period * self.recluster_every:
            return
        full = len(self.queue) >= self.queue.capacity and (len(self.queue) > 0 or self.queue.num_blocks == 0)
        if not full and not self.trainer.is_last_batch:
            return
        rows = torch.cat([self.queue.z.to(z), z]) if len(self.queue) else z
        groups = env if env is None or not len(self.queue) else torch.cat([self.queue.env, env])
        decorrelation.recluster(rows, groups, self._generator)
        decorrelation.epoch = self.current_epoch

    def _step_weights(self, losses: SampleLosses, z: Tensor, idx: Tensor) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Take the steps of the weights; return the samples held out from the network, and values to log."""
        count = len(z)
        held: Tensor | None = None
        kept = torch.arange(count)
        if self._decorrelation is not None and self.held_out and count > 1:
            number = min(max(1, round(self.held_out * count)), count - 1)
            held, kept = torch.randperm(count, generator=self._generator).split([number, count - number])
            held = held.to(z.device)
        kept = kept.to(z.device)
        rows = kept if held is None else held
        representation = torch.cat([z[rows], self.queue.z.to(z)]) if len(self.queue) else z[rows]
        weighted = torch.cat([rows, torch.arange(count, count + len(self.queue), device=z.device)])
        learner = self._learners(losses, z, kept) if self._trait("needs_validation", False) else None
        _, optimizer = self._both_optimizers()
        logged: dict[str, Tensor] = {}
        for _ in range(self.weight_steps):
            with torch.autocast(z.device.type, enabled=False):
                # the logits may be in half precision, in which the objective could not distinguish weights
                logits = torch.cat([self.weights.logits(idx), self.queue.logit]).to(z.dtype)
                even = self.weights.normalize(logits)
                weight = self.weights.bound(even)
                seen = OuterBatch(representation, weight[weighted], weight[kept], learner, self._generator)
                loss, logged = self.outer(seen)
                loss = loss + self.beta * (even - 1).square().mean()
            optimizer.zero_grad()
            # the virtual parameters of an unrolled objective need no gradient of their own
            self.manual_backward(loss, inputs=[self.weights.logit])
            optimizer.step()
        return held, logged

    def _learners(self, losses: SampleLosses, z: Tensor, kept: Tensor) -> VirtualLearners:
        """Return virtual learners of the batch's training samples, with as many validation samples drawn at random."""
        data = self.datamodule
        if not isinstance(data, DataSource):  # setup has made sure
            raise DataError(
                "the trainer has no data module to draw validation samples from; give fit() a data module of graphseq"
            )
        split = data.splits["val"]
        index = split[torch.randint(len(split), (len(z),), generator=self._generator)]
        drawn = data.transfer_batch_to_device(data.store.take(index), self.device, 0)
        lr = self._both_optimizers()[0].param_groups[0]["lr"]
        validation = data.transformed(drawn, "val")
        return VirtualLearners(self, losses.batch, z[kept], kept, losses.target[kept], validation, lr)

    def on_train_epoch_end(self) -> None:
        """Step a scheduler that monitors a validation metric, and raise if a loss of this epoch was not finite."""
        super().on_train_epoch_end()
        step_schedulers(self, self.scheduler_interval, self.monitor, epoch_end=True)


def _positions(losses: SampleLosses) -> Tensor:
    idx = sample_positions(losses.batch)
    if idx.shape != losses.terms.shape:
        raise DataError(f"idx is {tuple(idx.shape)} for {len(losses.terms)} samples; give one position for each")
    return idx


def _check_positions(store: Any) -> None:
    """Refuse a store of named rows with a field ``idx`` that is not the positions of its rows."""
    if not isinstance(store.take(torch.tensor([0])), dict):
        return
    begin = 0
    for batch in store.batches(torch.arange(len(store)), _CHECKED_AT_ONCE):
        found = sample_positions(batch)
        wrong = found.cpu() != torch.arange(begin, begin + len(found))
        if wrong.any():
            place = int(wrong.nonzero()[0])
            raise DataError(
                f"field idx of sample {begin + place} is {int(found[place])}; it must be the position of the sample, "
                "for weights are found by it. Rename your own field and add idx=torch.arange(number of samples)"
            )
        begin += len(found)
