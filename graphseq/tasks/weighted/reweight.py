"""Training with weights of samples that are learned along the way."""

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from graphseq.core.errors import DataError, UnsupportedStrategyError
from graphseq.nn.reweighting.outer import DecorrelationOuter, OuterBatch
from graphseq.nn.reweighting.weights import ElasticModule, FeatureQueue, SampleWeights
from graphseq.ops.decorrelation import effective_sample_size
from graphseq.tasks.supervised.samples import SampleTask, batch_field
from graphseq.tasks.weighted.virtual import VirtualLearners, warn_of_equal_distribution

__all__ = ["Reweighted"]

_IDX = "position of each sample in one data set, int64 (B,). Loaders of graphseq give it; add it to your own samples"
_ENV = "environment of each sample, int64 (B,), for clusters by environment; or use source='groups'"


class Reweighted(SampleTask):
    r"""Learn a network and weights of its training samples in turns: a bi-level procedure.

    .. math::
        \min_W L_{\mathrm{out}}(\theta^*(W), W) + \beta \operatorname{mean}(w - 1)^2, \qquad
        \theta^*(W) = \arg\min_\theta \sum_n w_n s_n(\theta) \Big/ \sum_n c_n

    What the weights are learned for is an object, since all else is the same: :class:`graphseq.nn.DecorrelationOuter`
    (weights under which variables of the representation are independent; the first-order rule of the paper) or
    :class:`graphseq.nn.UnrolledOuter` (weights under which virtual steps lower the validation loss). With
    ``held_out=0`` the former is plain alternation on the training batch, and with ``num_clusters="all"`` as well the
    objective of StableNet and OOD-GNN. An object of your own has ``forward(OuterBatch) -> (loss, logged)``.

    Weights are of mean 1 over the batch and the queue. They are used in training alone.

    Procedure:
        1. The batch is passed through the network. After ``start_epoch``, a share ``held_out`` of it, drawn anew, is
           kept from the loss of the network if the outer objective decorrelates.
        2. ``weight_steps`` steps of the weights on the outer objective, at the parameters that step 3 of the batch
           before left; representations and parameters are fixed. Clusters are found anew where due, from a full queue.
        3. One step of the network on the weighted loss of the rest.
        4. The representations join the queue.

    The weights' numbers have an optimiser of their own and are in the checkpoint, as are the queue, the clusters and
    the generator that all draws of 1 and 2 come from: training with a single cluster and ``held_out=0`` gives the very
    numbers of :class:`Classification`. Both optimisers count in ``global_step``: ``weight_steps + 1`` a batch.

    Logs:
        ``<stage>/loss`` (weighted in training) and the metrics of :class:`Classification` or :class:`Regression`;
        ``train/ess``, ``train/weight_min``, ``train/weight_max`` over batch and queue; ``train/decorrelation`` and
        ``train/validation`` where the outer objective has them.

    Source: arXiv 2312.12475. Differs from it: representations that the weights are learned on are those
    of training samples held out of the step, since weights of training samples say nothing of others; momentum
    averages of samples are an option of the queue; weights are bounded below in their effective sample size.

    Args:
        model: see :class:`SampleTask`.
        num_outputs: see :class:`SampleTask`.
        target: see :class:`SampleTask`.
        loss: see :class:`SampleTask`.
        outer: what the weights are learned for; default ``DecorrelationOuter()``.
        weights: numbers of samples; default ``SampleWeights()``, as many as the data module's store has samples.
        queue: representations of the last batches; default ``FeatureQueue()``; ``FeatureQueue(0)`` for none.
        held_out: share of a batch that only the weights are learned on, in [0, 1).
        beta: :math:`\beta`, at least 0; the second term is 1 / ESS - 1 before the bound on it.
        weight_steps: steps of the weights a batch, at least 1.
        start_epoch: epochs of equal weights before, at least 0.
        recluster_every: epochs that clusters are kept, at least 1.
        weight_optimizer: of the weights; it must take sparse gradients; default ``torch.optim.SparseAdam(lr=0.05)``.
        optimizer: see :class:`Task`.
        scheduler: see :class:`Task`; of the network's optimiser.
        scheduler_interval: see :class:`Task`.
        stop_on_nonfinite: see :class:`Task`.

    Raises:
        ValueError: if an argument is out of range, or environments are asked of averaged samples.
        DataError: in a run, if samples have no ``idx`` or one out of range, if there are too few to find clusters
            from, or if the outer objective needs validation data and there are none.
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
        target: Literal["multiclass", "multilabel", "regression"] = "multiclass",
        loss: nn.Module | None = None,
        outer: nn.Module | None = None,
        weights: SampleWeights | None = None,
        queue: FeatureQueue | None = None,
        held_out: float = 0.2,
        beta: float = 0.01,
        weight_steps: int = 1,
        start_epoch: int = 3,
        recluster_every: int = 1,
        weight_optimizer: OptimizerCallable | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        stop_on_nonfinite: bool = True,
    ) -> None:
        super().__init__(
            model,
            num_outputs,
            target=target,
            loss=loss,
            optimizer=optimizer,
            scheduler=scheduler,
            scheduler_interval=scheduler_interval,
            stop_on_nonfinite=stop_on_nonfinite,
        )
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
                "source='environments' with a queue of mode='ema': averages of samples are of none; use fifo"
            )
        self.held_out = held_out
        self.beta = beta
        self.weight_steps = weight_steps
        self.start_epoch = start_epoch
        self.recluster_every = recluster_every
        self.weight_optimizer = weight_optimizer
        # of its own, so that the network's dropout does not depend on it; the seed is the global one
        self._generator = torch.Generator().manual_seed(torch.initial_seed() % 2**63)
        self._seen: tuple[Any, Any, Tensor] | None = None
        self._held: Tensor | None = None

    # state

    def get_extra_state(self) -> Tensor:
        """Return the state of the task's own generator."""
        return self._generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Set the state of the task's own generator.

        Args:
            state: what :meth:`get_extra_state` returned.
        """
        self._generator.set_state(state.cpu())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make room for what the checkpoint holds of the data, and check that it fits."""
        self._adopt(checkpoint["state_dict"])
        super().on_load_checkpoint(checkpoint)

    def _adopt(self, state: Mapping[str, Any]) -> None:
        for name, module in self.named_modules():
            if isinstance(module, ElasticModule):
                module.adopt_shapes(state, f"{name}.")

    @property
    def _decorrelation(self) -> DecorrelationOuter | None:
        return cast(DecorrelationOuter | None, getattr(self.outer, "decorrelation", None))

    @property
    def _by_environment(self) -> bool:
        return self._decorrelation is not None and self._decorrelation.source == "environments"

    # start of a run

    def setup(self, stage: str) -> None:
        """Refuse several processes, find out how many samples there are, and build the metrics."""
        super().setup(stage)
        if stage != "fit":
            return
        if self.trainer.world_size > 1:
            raise UnsupportedStrategyError(
                f"{type(self).__name__} runs on one process, {self.trainer.world_size} were given: each would learn "
                "other weights from a queue of its own. Use devices=1"
            )
        data: Any = getattr(self.trainer, "datamodule", None)
        store = getattr(data, "store", None)
        if store is not None:
            self.weights.materialize(len(store))
        elif not self.weights.num_samples:
            raise DataError(
                "the number of samples is not known without a data module of graphseq; give "
                "weights=graphseq.nn.SampleWeights(num_samples=...), the number that `idx` counts"
            )
        if getattr(self.outer, "needs_validation", False):
            if store is None or not len(data.splits["val"]):
                raise DataError(
                    f"{type(self.outer).__name__} needs validation samples, and there are none; use a data module of "
                    "graphseq with a validation split, or DecorrelationOuter"
                )
            warn_of_equal_distribution(data)

    def configure_optimizers(self) -> Any:
        """Return the optimiser and scheduler of the network, and the optimiser of the weights."""
        logit = self.weights.logit.requires_grad_(False)
        network = super().configure_optimizers()
        logit.requires_grad_(True)
        if self.weight_optimizer is None:
            weights: Any = torch.optim.SparseAdam([logit], lr=0.05)
        else:
            weights = self.weight_optimizer([logit])
        if not isinstance(network, dict):
            return [{"optimizer": network}, {"optimizer": weights}]
        # stepped by hand, so that nothing of Lightning's table of schedulers applies
        scheduler = network["lr_scheduler"]["scheduler"]
        return [{"optimizer": network["optimizer"], "lr_scheduler": scheduler}, {"optimizer": weights}]

    # training

    def represent(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the network's output and what its head read; of the batch at hand, without passing it again.

        Args:
            batch: one batch.
        """
        if self._seen is not None and self._seen[0] is batch:
            return self._seen[1], self._seen[2]
        return super().represent(batch)

    def training_loss(
        self, terms: Tensor, sizes: Tensor, batch: Any, prediction: Tensor, representation: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the weighted loss of the samples that are not held out.

        Args:
            terms: sum of the losses of each sample, (B,).
            sizes: number of terms of each sum, (B,).
            batch: the batch, with ``idx``.
            prediction: that the losses are of, (B, K).
            representation: what the head read, (B, D).
        """
        idx = batch_field(batch, "idx", _IDX)
        if idx.shape != terms.shape:
            raise DataError(f"idx is {tuple(idx.shape)} for {len(terms)} samples; one for each is needed")
        with torch.no_grad():
            weight = self.weights(idx, self.queue.logit)
        if self._trainer is not None:
            logged = {"ess": effective_sample_size(weight), "weight_min": weight.min(), "weight_max": weight.max()}
            self._log_training(logged, len(terms))
        share = weight[: len(terms)].to(terms.dtype)
        if self._held is not None:
            kept = torch.ones_like(share).index_fill(0, self._held, 0)
            share, sizes = share * kept, sizes * kept
        size = sizes.sum()
        return (share * terms).sum() / size.clamp(min=1), size

    def _log_training(self, values: dict[str, Tensor], count: int) -> None:
        named = {f"train/{name}": value for name, value in values.items()}
        self.log_dict(named, batch_size=count, on_step=False, on_epoch=True)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Step the weights, then the network, on one batch."""
        self.stage = "train"
        output, representation = self.represent(batch)
        idx = batch_field(batch, "idx", _IDX)
        env = batch_field(batch, "env", _ENV) if self._by_environment else None
        z = representation.detach()
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        network = cast(list[Any], self.optimizers())[0]
        self._seen, self._held = (batch, output, representation), None
        try:
            if self.current_epoch >= self.start_epoch:
                self._recluster(z, env)
                if getattr(self.outer, "ready", True):
                    self._step_weights(batch, output, z, idx)
            loss = super().training_step(batch, batch_idx)
        finally:
            self._seen = self._held = None
        network.zero_grad()
        self.manual_backward(loss)
        network.step()
        self.queue.push(z, self.weights.logit.detach()[idx], env)
        if self.scheduler is not None and self.scheduler_interval == "step":
            self._step_scheduler()
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

    def _step_weights(self, batch: Any, output: Tensor, z: Tensor, idx: Tensor) -> None:
        """Take the steps of the weights, and draw which samples the network is not trained on."""
        count = len(z)
        kept = torch.arange(count)
        if self._decorrelation is not None and self.held_out and count > 1:
            number = min(max(1, round(self.held_out * count)), count - 1)
            held, kept = torch.randperm(count, generator=self._generator).split([number, count - number])
            self._held = held.to(z.device)
        kept = kept.to(z.device)
        rows = kept if self._held is None else self._held
        representation = torch.cat([z[rows], self.queue.z.to(z)]) if len(self.queue) else z[rows]
        weighted = torch.cat([rows, torch.arange(count, count + len(self.queue), device=z.device)])
        learner = self._learners(batch, output, z, kept) if getattr(self.outer, "needs_validation", False) else None
        optimizer = cast(list[Any], self.optimizers())[1]
        logged: dict[str, Tensor] = {}
        for _ in range(self.weight_steps):
            with torch.autocast(z.device.type, enabled=False):
                even = self.weights.normalize(torch.cat([self.weights.logits(idx), self.queue.logit]))
                weight = self.weights.bound(even)
                seen = OuterBatch(representation, weight[weighted], weight[kept], learner, self._generator)
                loss, logged = self.outer(seen)
                loss = loss + self.beta * (even - 1).square().mean()
            optimizer.zero_grad()
            # the virtual parameters of an unrolled objective need no gradient of their own
            self.manual_backward(loss, inputs=[self.weights.logit])
            optimizer.step()
        self._log_training(logged, count)

    def _learners(self, batch: Any, output: Tensor, z: Tensor, kept: Tensor) -> VirtualLearners:
        """Return virtual learners of the samples trained on, with as many validation samples drawn at random."""
        data = cast(Any, self.trainer).datamodule
        split = data.splits["val"]
        index = split[torch.randint(len(split), (len(z),), generator=self._generator)]
        drawn = data.transfer_batch_to_device(data.store.take(index), self.device, 0)
        target = self.aligned_target(batch, output.detach())[1][kept]
        lr = cast(list[Any], self.optimizers())[0].param_groups[0]["lr"]
        return VirtualLearners(self, batch, z[kept], kept, target, data.transformed(drawn, "val"), lr)

    def on_train_epoch_end(self) -> None:
        """Step the scheduler, and stop if a loss of this epoch was not finite."""
        super().on_train_epoch_end()
        if self.scheduler is not None and self.scheduler_interval == "epoch":
            self._step_scheduler()

    def _step_scheduler(self) -> None:
        scheduler = cast(Any, self.lr_schedulers())
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            value = self.trainer.callback_metrics.get(vars(scheduler).get("monitor", self.monitor))
            if value is not None:
                scheduler.step(value)
        else:
            scheduler.step()
