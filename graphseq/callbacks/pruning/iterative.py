"""Iterative pruning with rewinding, and activating while pruning, which chooses part of the weights by their sign."""

import copy
import itertools
import warnings
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from graphseq.core.random import seeded
from graphseq.nn.sparse.masked import MaskedConv2d, MaskedLinear, mask_layers
from graphseq.sparsity.prune import Scope, prune_lowest
from graphseq.sparsity.rectified import ReLUTrace, trace_relus
from graphseq.sparsity.scores import distance_score, magnitude_score, random_score
from graphseq.tasks.base import Task

__all__ = ["ActivatingPruning", "IterativePruning"]

Layers = Mapping[str, MaskedLinear | MaskedConv2d]
Score = Literal["magnitude", "random"]
Criterion = Literal["movement", "magnitude", "random"]
Sign = Literal["negative", "positive", "any"]
Eligible = Literal["relu_to_relu", "all"]


class IterativePruning(Callback):
    r"""Train, prune the weights of the lowest scores, rewind the rest, and train again, over several rounds.

    Round 0 trains the dense network. Before round k the share :math:`s_k` of the weights of all layers is masked,
    including those that were masked before. With rewinding, everything that is trained (weights, biases, statistics of
    norms) and the state of optimisers and schedulers go back to an earlier epoch, so that each round is a training of
    its own:

    .. math:: \theta_k \leftarrow m_k \odot \theta_0

    Linear and two-dimensional convolutional layers become :class:`graphseq.nn.MaskedLinear` and
    :class:`graphseq.nn.MaskedConv2d` when a run begins, under their names; their masks are in checkpoints, which load
    without this callback. Biases and norms are not pruned.

    The attribute ``history`` has one entry for each round: the ``epoch`` of its start, its ``sparsity``, the number of
    weights that ``remain`` in each layer, and the metrics ``val/...`` of its last validation. It is reset at the start
    of each run. The history, the weights to rewind to and the generator are in checkpoints, so that a resumed run is
    bit-identical to an uninterrupted one.

    Logs:
        ``pruning/sparsity`` at each pruning.

    Source: arXiv 1803.03635 with ``rewind_epoch=0``, arXiv 1912.05671 with a later one, arXiv 1710.01878 without
    rewinding and with the sparsities of :func:`graphseq.sparsity.gradual_sparsity`.

    Args:
        sparsities: share of the weights that is masked in each round after the first, rising, in [0, 1); 20 % of the
            remaining weights in each round are ``[0.2, 0.36, 0.488, ...]``.
        epochs_per_round: number of epochs of each round, the dense one too, at least 1; ``max_epochs`` of the trainer
            is that times the number of rounds.
        score: which weights are pruned first: those of smallest ``magnitude``, or, as a control, ``random`` ones.
        scope: whether weights of all layers are compared with each other (``global``), or each ``layer`` loses the same
            share.
        rewind_epoch: epoch of the dense round to whose start a pruned network is rewound, at least 0; None to go on
            from the trained weights.
        exclude: names of layers, or of parts of the network, that are not pruned; None for ``["head"]``.
        seed: seed of random scores.

    Raises:
        ValueError: if an argument is outside its range; when a run begins, if there is no layer to prune.
        TypeError: when a run begins, if the task is not a :class:`graphseq.tasks.Task`.

    Example:
        >>> IterativePruning([0.2, 0.36, 0.488], epochs_per_round=5).num_epochs
        20
    """

    def __init__(
        self,
        sparsities: list[float],
        epochs_per_round: int = 10,
        *,
        score: Score = "magnitude",
        scope: Scope = "global",
        rewind_epoch: int | None = 0,
        exclude: list[str] | None = None,
        seed: int = 0,
    ) -> None:
        given = [0.0, *sparsities]
        if not all(0 <= before <= after < 1 for before, after in itertools.pairwise(given)):
            raise ValueError(f"sparsities is {list(sparsities)}; give shares in [0, 1), each at least the one before")
        if epochs_per_round < 1:
            raise ValueError(f"epochs_per_round is {epochs_per_round}; it must be at least 1")
        if rewind_epoch is not None and not 0 <= rewind_epoch < epochs_per_round:
            raise ValueError(
                f"rewind_epoch is {rewind_epoch}; it must be from 0 to {epochs_per_round - 1}, an epoch of the dense "
                "round, or None"
            )
        for name, value, allowed in (("score", score, Score), ("scope", scope, Scope)):
            if value not in get_args(allowed):
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(get_args(allowed))}")
        self.sparsities, self.epochs_per_round = list(sparsities), epochs_per_round
        self.score, self.scope, self.rewind_epoch = score, scope, rewind_epoch
        self.exclude = ["head"] if exclude is None else list(exclude)
        self.generator = torch.Generator().manual_seed(seed)
        self.history: list[dict[str, Any]] = []
        self._kept: dict[str, Any] = {}  # what is rewound to
        self._layers: Layers = {}

    @property
    def num_epochs(self) -> int:
        """Number of epochs of all rounds."""
        return (len(self.sparsities) + 1) * self.epochs_per_round

    # state

    def state_dict(self) -> dict[str, Any]:
        """Return the history, the generator, and the state to rewind to."""
        return {
            "history": copy.deepcopy(self.history),
            "generator": self.generator.get_state(),
            "kept": copy.deepcopy(self._kept),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state.

        Args:
            state_dict: state that :meth:`state_dict` returned.
        """
        self.history = copy.deepcopy(state_dict["history"])
        self.generator.set_state(state_dict["generator"].cpu())
        self._kept = copy.deepcopy(state_dict["kept"])

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Replace the layers by masked ones, before weights of a checkpoint are loaded."""
        if not isinstance(pl_module, Task):
            raise TypeError(f"the task is a {type(pl_module).__name__}; pruning needs a task of graphseq")
        self._layers = mask_layers(pl_module.model, self.exclude)
        if stage == "fit" and trainer.global_step == 0:
            self.forget()  # what an earlier run left; the state of a resumed run is loaded after this
        if stage == "fit" and trainer.max_epochs is not None and 0 <= trainer.max_epochs < self.num_epochs:
            warnings.warn(
                f"max_epochs is {trainer.max_epochs}, but {len(self.sparsities) + 1} rounds of {self.epochs_per_round} "
                f"epochs are {self.num_epochs}: training ends before the last round",
                UserWarning,
                stacklevel=2,
            )

    def forget(self) -> None:
        """Drop the history and the weights of an earlier run, so that a callback can be used again."""
        self.history, self._kept = [], {}

    # rounds

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begin a round before the first batch of an epoch, if one is due."""
        # not at the start of the epoch: a run resumed from the last batch of the epoch before does not come there
        if batch_idx != 0:
            return
        epoch = trainer.current_epoch
        if self.rewind_epoch is not None and not self._kept and epoch >= self.rewind_epoch:
            self._keep(trainer, pl_module)
        due = min(epoch // self.epochs_per_round, len(self.sparsities))
        if not self.history:
            self.begin(trainer, pl_module, batch)
            self._note(epoch, 0.0, {})
        while len(self.history) <= due:
            self._prune(trainer, pl_module, batch, self.sparsities[len(self.history) - 1])

    def begin(self, trainer: Trainer, task: Task[Any], batch: Any) -> None:
        """Check the network before the dense round; for subclasses.

        Args:
            trainer: the running trainer.
            task: the task.
            batch: first batch, on the device.
        """

    def choose(self, count: int, trainer: Trainer, task: Task[Any], batch: Any) -> tuple[list[Tensor], dict[str, Any]]:
        """Return the masks of all layers after a pruning, and further entries for the history.

        Args:
            count: number of weights to prune.
            trainer: the running trainer.
            task: the task.
            batch: first batch of the epoch, on the device.
        """
        return self.lowest(count, [layer.mask for layer in self._layers.values()]), {}

    def lowest(self, count: int, masks: list[Tensor]) -> list[Tensor]:
        """Return the masks after a number of weights of the lowest scores are pruned.

        Args:
            count: number of weights to prune.
            masks: masks before.
        """
        weights = [layer.weight for layer in self._layers.values()]
        if self.score == "magnitude":
            scores = [magnitude_score(weight) for weight in weights]
        else:
            scores = [random_score(weight, self.generator) for weight in weights]
        return prune_lowest(scores, masks, count, scope=self.scope)

    def _prune(self, trainer: Trainer, task: Task[Any], batch: Any, sparsity: float) -> None:
        before = [layer.mask for layer in self._layers.values()]
        total, alive = sum(mask.numel() for mask in before), sum(int(mask.sum()) for mask in before)
        masks, noted = self.choose(max(0, alive - round((1 - sparsity) * total)), trainer, task, batch)
        if self.rewind_epoch is not None:
            self._rewind(trainer, task)
        for layer, mask in zip(self._layers.values(), masks, strict=True):
            layer.set_mask(mask)
            for optimizer in trainer.optimizers:
                _forget(optimizer, layer)
        self._note(trainer.current_epoch, sparsity, noted)
        for logger in trainer.loggers:
            logger.log_metrics({"pruning/sparsity": sparsity}, step=trainer.global_step)

    def _note(self, epoch: int, sparsity: float, noted: dict[str, Any]) -> None:
        remain = {name: int(layer.mask.sum()) for name, layer in self._layers.items()}
        self.history.append({"epoch": epoch, "sparsity": sparsity, "remain": remain, **noted})

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Record the metrics of this validation, which are those of the round until the next one."""
        if trainer.sanity_checking or trainer.state.fn != "fit" or not self.history:
            return
        found = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        self.history[-1].update(found)

    # rewinding

    def _weights(self, task: Task[Any]) -> dict[str, Tensor]:
        masks = {id(layer.mask) for layer in self._layers.values()}
        # keep_vars: the tensors themselves and not detached copies, to be told from masks
        state = task.state_dict(keep_vars=True)
        return {name: value for name, value in state.items() if isinstance(value, Tensor) and id(value) not in masks}

    def _keep(self, trainer: Trainer, task: Task[Any]) -> None:
        self._kept = {
            "weights": {name: value.detach().clone() for name, value in self._weights(task).items()},
            "optimizers": [copy.deepcopy(optimizer.state_dict()) for optimizer in trainer.optimizers],
            "schedulers": [copy.deepcopy(entry.scheduler.state_dict()) for entry in trainer.lr_scheduler_configs],
        }

    @torch.no_grad()
    def _rewind(self, trainer: Trainer, task: Task[Any]) -> None:
        for name, value in self._weights(task).items():
            value.copy_(self._kept["weights"][name])
        kept = copy.deepcopy({name: self._kept[name] for name in ("optimizers", "schedulers")})
        for optimizer, state in zip(trainer.optimizers, kept["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        for entry, state in zip(trainer.lr_scheduler_configs, kept["schedulers"], strict=True):
            entry.scheduler.load_state_dict(state)


def _forget(optimizer: torch.optim.Optimizer, layer: MaskedLinear | MaskedConv2d) -> None:
    """Set the moments of masked weights to zero, so that the optimiser does not move them."""
    for value in optimizer.state.get(layer.weight, {}).values():
        if isinstance(value, Tensor) and value.shape == layer.weight.shape:
            value.masked_fill_(~layer.mask, 0.0)


class ActivatingPruning(IterativePruning):
    r"""Iterative pruning that chooses part of the weights among the negative ones between ReLUs.

    It prunes in rounds as :class:`IterativePruning` does. Of the weights that a round prunes, all but a share :math:`q`
    are those of the lowest scores. The others are the remaining negative weights that have moved least since the round
    began:

    .. math:: \operatorname*{arg\,min}_{w < 0}\ |w - w_{\mathrm{start}}|

    Only layers whose inputs come from ReLUs and whose outputs go into one take part. There the inputs are at least 0,
    so that removing a negative weight can only raise the input of the following ReLU: with fixed inputs of the layer,
    no active unit becomes inactive, and inactive units may become active. That does not hold for signed inputs, and a
    batch norm in between, which centres again, weakens it. Where there are too few such weights, others of the lowest
    scores are pruned instead, so that the sparsity is that of :class:`IterativePruning`; ``share=0`` is the same
    training.

    Entries of ``history`` also have ``activating``, the number of weights pruned in this way, and ``shortfall``, how
    many were missing. :class:`graphseq.callbacks.DeadNeuronMonitor` logs the effects on the neurons.

    Source: the abstract of arXiv 2212.06145, and the official script. Differs from the script: batch norms and the
    classifier are not pruned; by default only layers between ReLUs are chosen from; this choice never removes the last
    weight of a unit; statistics of norms are rewound with the weights; the number of pruned weights is exact.

    Args:
        sparsities: see :class:`IterativePruning`.
        epochs_per_round: see :class:`IterativePruning`.
        share: share q of the weights of each round that is chosen among the eligible ones, in [0, 1]; the script prunes
            20 % of the weights in a round and chooses 2 % in this way, a share of 0.1.
        sign: weights that are eligible: ``negative``, or, as controls, ``positive`` or ``any``.
        criterion: which eligible weights are pruned first: those of smallest ``movement`` since the start of the round,
            those of smallest ``magnitude``, or ``random`` ones.
        layers: layers whose weights are eligible: ``relu_to_relu``, those between two ReLUs, or ``all`` pruned layers,
            as in the script.
        keep_inputs: whether each unit keeps at least one weight in this choice.
        options: further arguments of :class:`IterativePruning`: ``score``, ``scope``, ``rewind_epoch``, ``exclude``,
            ``seed``. ``scope`` is that of the weights that are not chosen by their sign; those that are chosen by it
            are compared over all layers.

    Raises:
        ValueError: if an argument is outside its range; before the first batch, if the network has no ReLU or no
            eligible layer.
        TypeError: when a run begins, if the task is not a :class:`graphseq.tasks.Task`.

    Example:
        >>> ActivatingPruning([0.2, 0.36], epochs_per_round=5, share=0.1).num_epochs
        15
    """

    def __init__(
        self,
        sparsities: list[float],
        epochs_per_round: int = 10,
        *,
        share: float = 0.1,
        sign: Sign = "negative",
        criterion: Criterion = "movement",
        layers: Eligible = "relu_to_relu",
        keep_inputs: bool = True,
        score: Score = "magnitude",
        scope: Scope = "global",
        rewind_epoch: int | None = 0,
        exclude: list[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            sparsities,
            epochs_per_round,
            score=score,
            scope=scope,
            rewind_epoch=rewind_epoch,
            exclude=exclude,
            seed=seed,
        )
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share}; it must be in [0, 1]")
        for name, value, allowed in (
            ("sign", sign, Sign), ("criterion", criterion, Criterion), ("layers", layers, Eligible),
        ):  # fmt: skip
            if value not in get_args(allowed):
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(get_args(allowed))}")
        self.share, self.sign, self.criterion = share, sign, criterion
        self.layers, self.keep_inputs = layers, keep_inputs
        self._start: dict[str, Tensor] = {}  # weights at the start of the round

    def state_dict(self) -> dict[str, Any]:
        """Return the state of :class:`IterativePruning`, and the weights at the start of the round."""
        return {**super().state_dict(), "start": {name: value.clone() for name, value in self._start.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state.

        Args:
            state_dict: state that :meth:`state_dict` returned.
        """
        super().load_state_dict(state_dict)
        self._start = {name: value.clone() for name, value in state_dict["start"].items()}

    def forget(self) -> None:
        """Drop the history and the weights of an earlier run, so that a callback can be used again."""
        super().forget()
        self._start = {}

    def begin(self, trainer: Trainer, task: Task[Any], batch: Any) -> None:
        """Refuse a network without eligible layers.

        Args:
            trainer: the running trainer.
            task: the task.
            batch: first batch, on the device.
        """
        found = self._trace(trainer, task, batch)
        network = type(task.model).__name__
        if not found.num_relus:
            raise ValueError(
                f"{network} calls no ReLU; activating while pruning needs one, since units of other activations do not "
                "die. Give a network with torch.nn.ReLU, or use IterativePruning"
            )
        if self.layers == "relu_to_relu" and not any(self._eligible_layers(found)):
            raise ValueError(
                f"{network} has no layer that stands between two ReLUs among {', '.join(self._layers)}; give a deeper "
                "network, or layers='all'"
            )

    def _note(self, epoch: int, sparsity: float, noted: dict[str, Any]) -> None:
        super()._note(epoch, sparsity, noted)
        self._start = {name: layer.weight.detach().clone() for name, layer in self._layers.items()}

    def _trace(self, trainer: Trainer, task: Task[Any], batch: Any) -> ReLUTrace:
        with seeded(0), trainer.precision_plugin.forward_context():
            return trace_relus(task.model, lambda: task(batch))

    def _eligible_layers(self, found: ReLUTrace) -> list[bool]:
        if self.layers == "all":
            return [True] * len(self._layers)
        return [name in found.nonnegative_inputs and name in found.rectified for name in self._layers]

    def choose(self, count: int, trainer: Trainer, task: Task[Any], batch: Any) -> tuple[list[Tensor], dict[str, Any]]:
        """Return the masks of all layers after a pruning, and how many weights were chosen by their sign.

        Args:
            count: number of weights to prune.
            trainer: the running trainer.
            task: the task.
            batch: first batch of the epoch, on the device.
        """
        own = round(self.share * count)
        masks = self.lowest(count - own, [layer.mask for layer in self._layers.values()])
        if own == 0:
            return masks, {"activating": 0, "shortfall": 0}
        places = self._eligible_layers(self._trace(trainer, task, batch))
        scores, eligible = [], []
        for (name, layer), place in zip(self._layers.items(), places, strict=True):
            weight = layer.weight.detach()
            signs = {"negative": weight < 0, "positive": weight > 0, "any": torch.ones_like(layer.mask)}
            eligible.append(signs[self.sign] & place)
            if self.criterion == "movement":
                scores.append(distance_score(weight, self._start[name].to(weight)))
            elif self.criterion == "magnitude":
                scores.append(magnitude_score(weight))
            else:
                scores.append(random_score(weight, self.generator))
        after = prune_lowest(scores, masks, own, eligible=eligible, keep_inputs=self.keep_inputs)
        done = sum(int(mask.sum()) for mask in masks) - sum(int(mask.sum()) for mask in after)
        if done < own:
            after = self.lowest(own - done, after)
        return after, {"activating": done, "shortfall": own - done}
