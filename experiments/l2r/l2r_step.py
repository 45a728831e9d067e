"""What learned weights cost: a step of the weights, an epoch, and the published procedure for a batch."""

import functools
import statistics
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from experiments.l2r.training import quiet_fit
from graphseq.bench.experiment import Check, Conclusion, Experiment, Row, Scale
from graphseq.bench.timing import alternate, ratios
from graphseq.data import MotifDataModule
from graphseq.models import GraphClassifier
from graphseq.nn import DecorrelationOuter, FeatureQueue, UnrolledOuter
from graphseq.ops import decorrelation_loss, random_fourier_features
from graphseq.tasks import Classification, Reweighted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["L2RStepSpeed"]

_BATCH, _WIDTH, _SMALL = 64, 64, 1000
_BLOCKS = (0, 2, 4, 8, 16, 32)
_ROUNDS = {"quick": 3, "default": 15, "full": 41}
_LARGE = {"quick": 2000, "default": 20_000, "full": 20_000}
_EPOCH_GRAPHS = {"quick": 128, "default": 1000, "full": 1000}
_INNER_STEPS, _BALANCE = 20, 70.0  # of the released code: steps a batch, and by how much the loss is divided


class L2RStepSpeed(Experiment):
    """A step of learned weights by training set and queue, an epoch beside plain training, and the published procedure.

    Source: arXiv 2312.12475, whose claim is a cost that does not depend on the number of training graphs; its released
    code learns new weights from 1 for every batch in 20 steps of SGD.

    Parts, one thread, contenders alternating in one process, medians over rounds:
        - *training set*: one step of the weights as the task takes it (batches of 64, width 64, a full queue of 4
          blocks, clusters known) with 1000 and with 20,000 training graphs.
        - *queue*: the same step with a queue of 0 to 32 blocks.
        - *epoch*: an epoch of ``Reweighted`` at its defaults with either objective, all epochs weighted, and of
          ``Classification``, under the Trainer: 1000 motif graphs, GIN of 3 layers, width 64. The start of a fit is in
          both.
        - *published*: the 20 steps of the released procedure on one batch and one block of memory (128 rows, 64
          variables): softmax weights, all pairs, loss / 70 plus the sum of their squares, SGD with momentum 0.9 at 1,
          a tenth of it after half of the steps. The peer is a plain re-implementation: one covariance for each random
          feature, as in the released code (one feature), and one for each pair of variables, as the formula is printed
          (five features, 16 variables, since it takes seconds at 64). Ours takes ``decorrelation_loss`` instead, in the
          same steps on the same random numbers; weights after all steps are compared first. Beside them, what
          ``Reweighted`` does for a batch: one step.

    Rule: (1) 20,000 graphs cost at most 1.3 times 1000; (2) time is linear in the queue: a line through the six medians
    explains at least 98 % of their variance; (3) an epoch with the default objective takes at most 2 times a plain one;
    (4) and (5) the peer takes no less time than ours for equal weights, in the released form and in the printed one.

    Example:
        >>> L2RStepSpeed().cells("quick", 1)
        [{'part': 'training set'}, {'part': 'queue'}, {'part': 'epoch'}, {'part': 'published'}]
    """

    name, kind = "speed.l2r_step", "speed"

    def cells(self, scale: Scale, seeds: int) -> list[Row]:
        """Return one cell for each part.

        Args:
            scale: does not change the list.
            seeds: does not change it; the rounds are the repetitions.
        """
        return [{"part": part} for part in ("training set", "queue", "epoch", "published")]

    def run(self, cell: Row, scale: Scale) -> Row:
        """Measure one part.

        Args:
            cell: one of :meth:`cells`.
            scale: number of rounds and of graphs.

        Raises:
            RuntimeError: if the published procedure and ours do not give the same weights.
        """
        rounds, part = _ROUNDS[scale], cell["part"]
        if part == "training set":
            steps = {f"{count} graphs": _weight_step(count, 4) for count in (_SMALL, _LARGE[scale])}
            return _timed(steps, rounds)
        if part == "queue":
            return _timed({f"{blocks} blocks": _weight_step(_SMALL, blocks) for blocks in _BLOCKS}, rounds)
        if part == "epoch":
            return _timed(_epochs(_EPOCH_GRAPHS[scale]), max(3, rounds // 2))
        row: Row = {"ms": {}, "ratio": {}}
        for label, variables, features in (("released", _WIDTH, 1), ("printed", 16, 5)):
            ours, peer = _procedures(variables, features, label)
            difference = float((ours() - peer()).abs().max())
            if not difference < 1e-5:
                raise RuntimeError(f"weights of the published procedure, {label}, differ from ours by {difference}")
            times = alternate({"ours": ours, "peer": peer}, rounds)
            row["ms"] |= {f"{label}, {side}": 1e3 * statistics.median(times[side]) for side in times}
            row["ratio"][label] = str(ratios(times, "ours", "peer"))
            row[f"difference, {label}"] = difference
        step = _weight_step(_SMALL, 1)
        row["ms"]["one step of the task"] = 1e3 * statistics.median(alternate({"step": step}, rounds)["step"])
        return row

    def conclude(self, rows: list[Row]) -> Conclusion:
        """Apply the rule.

        Args:
            rows: the parts that ran.
        """
        parts = {row["part"]: row["ms"] for row in rows}
        checks = []
        if "training set" in parts:
            small, large = parts["training set"].values()
            names = " over ".join(list(parts["training set"])[::-1])
            checks.append(Check(f"(1) step of the weights, {names}", large / small, 1.3, large / small <= 1.3))
        if "queue" in parts:
            blocks = [float(name.split()[0]) for name in parts["queue"]]
            fit = float(np.corrcoef(blocks, list(parts["queue"].values()))[0, 1] ** 2)
            checks.append(Check("(2) share of the variance that a line in the queue explains", fit, 0.98, fit >= 0.98))
        if "epoch" in parts:
            plain = parts["epoch"]["plain"]
            share = parts["epoch"]["decorrelation"] / plain
            checks.append(Check("(3) epoch with weights over plain epoch", share, 2.0, share <= 2.0))
        if "published" in parts:
            for number, label in ((4, "released"), (5, "printed")):
                times = parts["published"]
                share = times[f"{label}, peer"] / times[f"{label}, ours"]
                checks.append(Check(f"({number}) published procedure, {label}, over ours", share, 1.0, share >= 1.0))
        table = []
        for part, times in parts.items():
            first = next(iter(times.values()))
            for name, value in times.items():
                base = times.get(name.replace("peer", "ours"), first) if part == "published" else first
                table.append({"part": part, "what": name, "ms": value, "over the first": value / base})
        return Conclusion(None, checks, table)

    def draw(self, record: Row, axes: "Axes") -> None:
        """Draw the time of a step over the queue, and of the other parts.

        Args:
            record: the record.
            axes: empty Axes.
        """
        figure: Any = axes.figure
        axes.remove()
        left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.2))
        figure.set_size_inches(10.5, 4.2)
        parts = {row["part"]: row["ms"] for row in record["rows"] if "skipped" not in row}
        queue = parts.get("queue", {})
        left.plot([int(name.split()[0]) * _BATCH for name in queue], list(queue.values()), "o-", label="1000 graphs")
        for name, value in parts.get("training set", {}).items():
            left.plot(4 * _BATCH, value, "x", markersize=9, label=f"{name}, measured apart")
        left.set_xlabel("rows of the queue")
        left.set_ylabel("milliseconds a step of the weights")
        left.set_ylim(bottom=0)
        left.legend(frameon=False, fontsize="small")
        shown = [(part, name, value) for part in ("epoch", "published") for name, value in parts.get(part, {}).items()]
        for place, (part, _, value) in enumerate(shown[::-1]):
            right.barh(place, value, color="tab:blue" if part == "epoch" else "tab:orange")
            right.text(value * 1.05, place, f"{value:.3g}", va="center", fontsize="small")
        right.set_yticks(range(len(shown)), [f"{part}: {name}" for part, name, _ in shown[::-1]], fontsize="small")
        right.set_xscale("log")
        right.margins(x=0.2)
        right.set_xlabel("milliseconds (log)")


def _timed(contenders: Mapping[str, Callable[[], object]], rounds: int) -> Row:
    times = alternate(contenders, rounds)
    return {"ms": {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()}}


def _network(width: int = _WIDTH) -> GraphClassifier:
    torch.manual_seed(0)
    return GraphClassifier(8, 2, hidden_channels=width, num_layers=3, conv="gin")


def _trainer(epochs: int = 1, **options: Any) -> Trainer:
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        **options,
    )


def _weight_step(count: int, blocks: int) -> Callable[[], None]:
    """Return one step of the weights of a task that has just been fitted on a few batches."""
    data = MotifDataModule(num_train=count, num_val=0, num_test=0, batch_size=_BATCH)
    task = Reweighted(_network(), num_outputs=2, queue=FeatureQueue(blocks), start_epoch=0)
    with quiet_fit():
        _trainer(limit_train_batches=3).fit(task, data)
    batch = next(iter(data.batches("train")))
    losses = task.losses_of(batch)
    z = losses.representation.detach()
    generator = torch.Generator().manual_seed(0)
    while len(task.queue) < task.queue.capacity:
        task.queue.push(torch.randn(z.shape, generator=generator), torch.zeros(len(z)))
    decorrelation = cast(DecorrelationOuter, task.outer)
    decorrelation.recluster(z, None, generator)

    def step() -> None:
        task._step_weights(losses, z, batch.idx)

    return step


def _epochs(count: int) -> dict[str, Callable[[], None]]:
    data = MotifDataModule(num_train=count, num_val=_BATCH, num_test=0, batch_size=_BATCH)

    def fit(build: Callable[[], Any]) -> None:
        with quiet_fit():
            _trainer().fit(build(), data)

    tasks: dict[str, Callable[[], Any]] = {
        "plain": lambda: Classification(_network(), num_outputs=2),
        "decorrelation": lambda: Reweighted(_network(), num_outputs=2, start_epoch=0),
        "unrolled head": lambda: Reweighted(_network(), num_outputs=2, outer=UnrolledOuter(), start_epoch=0),
    }
    return {name: functools.partial(fit, build) for name, build in tasks.items()}


def _loss_by_feature(features: Tensor, weight: Tensor) -> Tensor:
    """Sum over random features of the squared covariances of all pairs, each counted twice, as in released code."""
    total = features.new_zeros(())
    for number in range(features.size(2)):
        column = features[:, :, number]
        mean = (weight[:, None] * column).sum(0, keepdim=True)
        covariance = (weight[:, None] * column).T @ column - mean.T @ mean
        total = total + covariance.square().sum() - covariance.diagonal().square().sum()
    return total


def _loss_by_pair(features: Tensor, weight: Tensor) -> Tensor:
    """Sum over pairs of variables of the squared norm of their covariance, one matrix for each pair."""
    total = features.new_zeros(())
    for first in range(features.size(1)):
        for second in range(first):
            left, right = features[:, first], features[:, second]
            left = left - (weight[:, None] * left).sum(0)
            right = right - (weight[:, None] * right).sum(0)
            total = total + ((weight[:, None] * left).T @ right).square().sum()
    return 2 * total


def _our_loss(features: Tensor, weight: Tensor) -> Tensor:
    return 2 * decorrelation_loss(features, weight, reduction="sum")


def _procedures(variables: int, num_features: int, form: str) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Return both sides of the published procedure for one batch: calls that give its weights."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(_BATCH, variables, generator=generator) @ torch.randn(variables, variables, generator=generator)
    memory, remembered = z.flip(0).roll(1, 1), torch.ones(_BATCH)
    shape = (_INNER_STEPS, variables, num_features)
    omega = torch.randn(shape, generator=generator)
    phase = torch.rand(shape, generator=generator) * (2 * torch.pi)

    def learn(loss_of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        number = torch.ones(_BATCH, requires_grad=True)  # nothing is remembered of a graph
        optimizer = torch.optim.SGD([number], lr=1.0, momentum=0.9)
        rows = torch.cat([z, memory])
        for step in range(_INNER_STEPS):
            for group in optimizer.param_groups:
                group["lr"] = 1.0 if step < _INNER_STEPS // 2 else 0.1
            features = random_fourier_features(rows, num_features, omega=omega[step], phase=phase[step])
            weight = torch.cat([number, remembered]).softmax(0)
            loss = loss_of(features, weight) / _BALANCE + weight.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return number.detach().softmax(0)

    peer = _loss_by_feature if form == "released" else _loss_by_pair
    return functools.partial(learn, _our_loss), functools.partial(learn, peer)


speed = L2RStepSpeed()
