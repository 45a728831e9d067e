"""What all trained cells on learned weights share: graphs that shift, arms, and runs that validation chooses in."""

import contextlib
import functools
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from graphseq.bench.experiment import Row
from graphseq.data import GraphSetDataModule, GraphStore
from graphseq.metrics import MaskedAUROC
from graphseq.models import GraphClassifier
from graphseq.nn import (
    CORAL,
    DecorrelationOuter,
    GroupDRO,
    InvariantRisk,
    SampleWeights,
    UnrolledOuter,
    VarianceRisk,
)
from graphseq.ops import effective_sample_size
from graphseq.tasks import MultiEnvironment, Reweighted, SampleTask

__all__ = [
    "ARMS",
    "BALANCED",
    "FORMS",
    "POOLED",
    "Arm",
    "Recipe",
    "ShiftedGraphs",
    "quiet_fit",
    "train_arm",
    "with_env",
]

POOLED, BALANCED = "ERM, train + validation", "class-balanced"
FORMS = ("L2R, first order", "L2R, unrolled")


@dataclass(frozen=True)
class ShiftedGraphs:
    """Graphs whose test part is distributed otherwise than their training part.

    Args:
        store: with the targets ``y`` and ``env``, the environment of each graph; those of training are 0, 1, ...
        splits: index tensors ``train`` and ``val``.
        tests: index tensors of the tests, by name.
        target: what ``y`` holds.
        unit: of one output: deviation of regression targets, by which errors are multiplied.
        network: further arguments of the network.
        elsewhere: graphs of the tests that are not in ``store``, by name.

    Example:
        >>> from graphseq.data import MotifDataModule
        >>> data = MotifDataModule(num_train=8, num_val=4, num_test=4)
        >>> ShiftedGraphs(data.graphs, data.splits, {"reversed": data.splits["test"]}).num_outputs
        2
    """

    store: GraphStore
    splits: dict[str, Tensor]
    tests: dict[str, Tensor]
    target: Literal["multiclass", "multilabel", "regression"] = "multiclass"
    unit: float = 1.0
    network: dict[str, Any] = field(default_factory=dict)
    elsewhere: dict[str, GraphStore] = field(default_factory=dict)

    def test_part(self, name: str) -> Any:
        """Return the graphs of a test as one batch.

        Args:
            name: of the test.
        """
        return self.elsewhere.get(name, self.store).take(self.tests[name])

    @property
    def num_outputs(self) -> int:
        """Classes, labels or numbers."""
        y = self.store.field("y")
        return int(y.max()) + 1 if self.target == "multiclass" else int(y.size(1))

    @property
    def classes(self) -> Tensor | None:
        """Class of each graph, or None where there is no single one."""
        y = self.store.field("y")
        if self.target == "multilabel" and y.size(1) == 1 and not bool(y.isnan().any()):
            return y[:, 0].long()
        return y if self.target == "multiclass" else None


@dataclass(frozen=True)
class Recipe:
    """How all arms of an experiment are trained.

    Args:
        epochs: of training.
        start_epoch: epochs of plain training before a method sets in.
        batch_size: graphs of a step.
        learning_rate: of Adam.
        weight_steps: steps of the weights a batch.
        strengths: of each method that are tried, 1 (the middle one) or 3.
        network: arguments of the network.

    Example:
        >>> Recipe(epochs=12).start_epoch
        2
    """

    epochs: int
    start_epoch: int = 2
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_steps: int = 4
    strengths: int = 1
    network: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Arm:
    """A method, and the strengths it is tried with.

    Args:
        build: the task from a strength, the data, the recipe and what all tasks get.
        strengths: three of them, or one where there is nothing to choose.
        pools: whether the validation graphs are trained on.
        balances: whether the graphs of rarer classes are repeated.

    Example:
        >>> ARMS["GroupDRO"].strengths
        (0.01, 0.1, 1.0)
    """

    build: Callable[[float, ShiftedGraphs, Recipe, dict[str, Any]], SampleTask]
    strengths: tuple[float, ...] = (0.0,)
    pools: bool = False
    balances: bool = False

    def tried(self, count: int) -> tuple[float, ...]:
        """Return the strengths that are tried: all, or the middle one.

        Args:
            count: how many are asked for.
        """
        return self.strengths if count >= len(self.strengths) else self.strengths[len(self.strengths) // 2 :][:1]


def _plain(_: float, data: ShiftedGraphs, recipe: Recipe, common: dict[str, Any]) -> SampleTask:
    return SampleTask(**common)


def _environments(objective: Callable[[float, int], nn.Module]) -> Callable[..., SampleTask]:
    def build(strength: float, data: ShiftedGraphs, recipe: Recipe, common: dict[str, Any]) -> SampleTask:
        number = int(data.store.field("env")[data.splits["train"]].max()) + 1
        return MultiEnvironment(objective=objective(strength, number), start_epoch=recipe.start_epoch, **common)

    return build


def _reweighted(outer: Callable[[], nn.Module], held_out: float) -> Callable[..., SampleTask]:
    def build(strength: float, data: ShiftedGraphs, recipe: Recipe, common: dict[str, Any]) -> SampleTask:
        return Reweighted(
            outer=outer(),
            weights=SampleWeights(),
            held_out=held_out,
            weight_steps=recipe.weight_steps,
            start_epoch=recipe.start_epoch,
            weight_optimizer=cast(Any, functools.partial(torch.optim.SparseAdam, lr=strength)),
            **common,
        )

    return build


_PENALTIES, _WEIGHT_RATES = (1.0, 10.0, 100.0), (0.02, 0.05, 0.2)
ARMS: dict[str, Arm] = {
    "ERM": Arm(_plain),
    POOLED: Arm(_plain, pools=True),
    BALANCED: Arm(_plain, balances=True),
    "IRM": Arm(_environments(lambda strength, _: InvariantRisk(strength)), _PENALTIES),
    "V-REx": Arm(_environments(lambda strength, _: VarianceRisk(strength)), _PENALTIES),
    "GroupDRO": Arm(_environments(lambda strength, number: GroupDRO(number, strength)), (0.01, 0.1, 1.0)),
    "CORAL": Arm(_environments(lambda strength, _: CORAL(strength)), _PENALTIES),
    "all pairs": Arm(_reweighted(lambda: DecorrelationOuter("all"), 0.0), _WEIGHT_RATES),
    FORMS[0]: Arm(_reweighted(DecorrelationOuter, 0.2), _WEIGHT_RATES),
    FORMS[1]: Arm(_reweighted(UnrolledOuter, 0.0), _WEIGHT_RATES),
}
"""Arms by name, the L2R forms last; ``all pairs`` is the objective of OOD-GNN and StableNet."""


def with_env(store: GraphStore, env: Tensor, y: Tensor | None = None) -> GraphStore:
    """Return graphs with the environment of each, and with other targets if they are given.

    Args:
        store: the graphs.
        env: environment of each graph, int64 (G,).
        y: targets, (G,) or (G, K).

    Example:
        >>> from torch_geometric.data import Data
        >>> store = GraphStore.from_dataset([Data(x=torch.ones(2, 1), y=torch.tensor([0])) for _ in range(3)])
        >>> with_env(store, torch.tensor([0, 1, 1])).take(torch.tensor([2])).env
        tensor([1])
    """
    state = store.to_dict()
    new = {"env": env} if y is None else {"env": env, "y": y}
    kept = [entry for entry in state["fields"] if entry["path"][0] not in new]
    state["fields"] = kept + [
        {"path": [name], "value": value, "dim": 0, "group": 0, "increment": None} for name, value in new.items()
    ]
    return GraphStore.from_dict(state)


class _Parts(GraphSetDataModule):
    def __init__(self, store: GraphStore, splits: dict[str, Tensor], batch_size: int, seed: int) -> None:
        super().__init__(batch_size, seed=seed)
        self._parts = store, splits

    def read(self) -> tuple[GraphStore, dict[str, Tensor]]:
        return self._parts


@contextlib.contextmanager
def quiet_fit() -> Iterator[None]:
    """Keep Lightning from telling of devices and workers.

    Example:
        >>> with quiet_fit():
        ...     _ = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    """
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the number of workers, which nobody asked for
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


class _Choice(Callback):
    """Keep the network, and the numbers of the weights, of the epoch with the best score of a part."""

    def __init__(self, part: Any, data: ShiftedGraphs, by_loss: bool) -> None:
        self.part, self.data, self.by_loss = part, data, by_loss
        self.best: tuple[float, float] = (-float("inf"), -float("inf"))
        self.epoch = 0
        self.state: dict[str, Tensor] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        score, loss = _evaluate(pl_module, self.part, self.data)
        quality = (-loss, score) if self.by_loss else (score, -loss)
        if quality > self.best or not self.state:
            self.best, self.epoch = quality, trainer.current_epoch + 1
            kept = {f"model.{name}": value for name, value in pl_module.model.state_dict().items()}
            if isinstance(pl_module, Reweighted):
                kept["weights.logit"] = pl_module.weights.logit.detach()
            self.state = {name: value.clone() for name, value in kept.items()}


@torch.no_grad()
def _evaluate(task: SampleTask, part: Any, data: ShiftedGraphs) -> tuple[float, float]:
    """Return the score of a part, higher being better, and its loss."""
    training = task.model.training
    task.model.eval()
    prediction, target = task.aligned_target(part, task(part))
    terms, sizes = task.sample_losses(prediction, target)
    task.model.train(training)
    loss = float(terms.sum() / sizes.sum())
    if data.target == "multiclass":
        return 100 * float((prediction.argmax(1) == target).double().mean()), loss
    if data.target == "regression":
        return -data.unit * loss**0.5, loss
    metric = MaskedAUROC(data.num_outputs)
    metric.update(prediction, target)
    return 100 * float(metric.compute()), loss


def _balanced(index: Tensor, classes: Tensor) -> Tensor:
    """Return the index with the members of rarer classes repeated until all are as frequent as the most frequent."""
    members = [index[classes[index] == number] for number in classes[index].unique()]
    most = max(len(part) for part in members)
    return torch.cat([part.repeat(-(-most // len(part)))[:most] for part in members])


def train_arm(name: str, data: ShiftedGraphs, recipe: Recipe, seed: int) -> Row:
    """Train one arm with each of its strengths, and test the strength and the epoch that the validation chooses.

    The arm that trains on the validation graphs too takes the epoch with the least loss on what it is trained on.

    Args:
        name: of :data:`ARMS`.
        data: the graphs.
        recipe: how.
        seed: of weights, order and draws; arms of one seed start from the same network.

    Returns:
        ``val`` and ``test`` (by name), in percent; minus the error for regression, so that more is always better.
        ``ess`` is the effective sample size of the weights of all training graphs at the chosen epoch, ``last_ess``
        that of batch and queue in the last epoch, and ``weight_ratio`` the mean weight of training graphs whose
        ``spurious`` is not their class over that of the others, where graphs have it.

    Example:
        >>> from graphseq.data import MotifDataModule
        >>> motif = MotifDataModule(num_train=8, num_val=4, num_test=4)
        >>> data = ShiftedGraphs(motif.graphs, motif.splits, {"reversed": motif.splits["test"]})
        >>> train_arm("ERM", data, Recipe(epochs=1), seed=0)["epoch"]
        1
    """
    arm, start = ARMS[name], time.process_time()
    runs = [_train(arm, strength, data, recipe, seed) for strength in arm.tried(recipe.strengths)]
    best = max(runs, key=lambda run: run["quality"])
    return {
        **{key: value for key, value in best.items() if key != "quality"},
        "tried": {f"{run['strength']:g}": run["val"] for run in runs},
        "cpu_seconds": round(time.process_time() - start, 2),
    }


def _train(arm: Arm, strength: float, data: ShiftedGraphs, recipe: Recipe, seed: int) -> Row:
    splits = {"train": data.splits["train"], "val": data.splits["val"], "test": data.splits["val"][:0]}
    if arm.pools:
        splits["train"] = torch.cat([splits["train"], splits["val"]])
    if arm.balances:
        splits["train"] = _balanced(splits["train"], cast(Tensor, data.classes))
    module = _Parts(data.store, splits, recipe.batch_size, seed)
    torch.manual_seed(seed)
    network = GraphClassifier(data.store.field("x").size(1), data.num_outputs, **{**recipe.network, **data.network})
    common = {
        "model": network,
        "num_outputs": data.num_outputs,
        "target": data.target,
        "optimizer": functools.partial(torch.optim.Adam, lr=recipe.learning_rate),
    }
    task = arm.build(strength, data, recipe, common)
    watched = splits["train"] if arm.pools else splits["val"]
    choice = _Choice(data.store.take(watched), data, by_loss=arm.pools)
    with quiet_fit():
        trainer = Trainer(
            max_epochs=recipe.epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            callbacks=[choice],
        )
        trainer.fit(task, module)
    last = trainer.callback_metrics.get("train/ess")
    task.load_state_dict(choice.state, strict=False)
    row: Row = {
        "strength": strength,
        "epoch": choice.epoch,
        "quality": choice.best,
        "val": None if arm.pools else round(_evaluate(task, choice.part, data)[0], 4),
        "test": {test: round(_evaluate(task, data.test_part(test), data)[0], 4) for test in data.tests},
        "ess": 1.0,
        "last_ess": 1.0 if last is None else round(float(last), 4),
    }
    return row | (_weights_of(task, data, splits["train"]) if isinstance(task, Reweighted) else {})


@torch.no_grad()
def _weights_of(task: Reweighted, data: ShiftedGraphs, index: Tensor) -> Row:
    weight = task.weights(index)
    row: Row = {"ess": round(float(effective_sample_size(weight)), 4)}
    spurious = data.store.field("spurious")
    if isinstance(spurious, Tensor):
        agrees = spurious[index] == data.store.field("y")[index]
        if bool(agrees.any()) and bool((~agrees).any()):
            row["weight_ratio"] = round(float(weight[~agrees].mean() / weight[agrees].mean()), 4)
    return row
