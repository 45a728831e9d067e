"""What the effects of learned weights share: graphs that shift, the arms, and the rule, the same on all data."""

import statistics
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphseq.bench import Check, Results, Row, interval_text, new
from graphseq.core import DataError
from graphseq.data import GraphStore, MoleculeDataModule, MotifDataModule, TUDataModule, scaffold
from graphseq.ops import effective_sample_size
from graphseq.tasks import Reweighted

__all__ = [
    "FORMS",
    "POOLED",
    "MotifShift",
    "ScaffoldShift",
    "SizeShift",
    "Wins",
    "arms",
    "score_of",
    "table",
    "weights",
]

POOLED, BALANCED = "ERM, train + validation", "class-balanced"
FORMS = ("L2R, first order", "L2R, unrolled")
PENALTIES, RATES, STEPS = (1.0, 10.0, 100.0), (0.02, 0.05, 0.2), (0.01, 0.1, 1.0)  # where one is fixed: the second
SMALL_NODES, SMALL_GRAPHS = 25, 500  # of the published split of PROTEINS


def arms(environments: int, start_epoch: int, *, strengths: int = 1, balanced: bool = True) -> dict[str, Any]:
    """Return the overrides of all arms, those of methods with as many strengths as are tried."""

    def penalised(name: str, values: tuple[float, ...], **init_args: Any) -> list[dict[str, Any]]:
        task = {"model.class_path": "graphseq.tasks.MultiEnvironment", "model.start_epoch": start_epoch}
        return [
            {**task, "model.objective": new(f"graphseq.nn.{name}", **init_args, **{_STRENGTH[name]: value})}
            for value in (values if strengths == 3 else values[1:2])
        ]

    def weighted(outer: dict[str, Any], held_out: float) -> list[dict[str, Any]]:
        task = {"model.class_path": "graphseq.tasks.Reweighted", "model.start_epoch": start_epoch}
        method = {"model.outer": outer, "model.held_out": held_out, "model.weight_steps": 4}
        return [
            {**task, **method, "model.weight_optimizer": new("torch.optim.SparseAdam", lr=rate)}
            for rate in (RATES if strengths == 3 else RATES[1:2])
        ]

    return {
        POOLED: {"data.pool": True, "choose": "val/loss"},
        "ERM": {},
        **({BALANCED: {"data.balance": True}} if balanced else {}),
        "IRM": penalised("InvariantRisk", PENALTIES),
        "V-REx": penalised("VarianceRisk", PENALTIES),
        "GroupDRO": penalised("GroupDRO", STEPS, num_environments=environments),
        "CORAL": penalised("CORAL", PENALTIES),
        "all pairs": weighted(new("graphseq.nn.DecorrelationOuter", num_clusters="all"), 0.0),
        FORMS[0]: weighted(new("graphseq.nn.DecorrelationOuter"), 0.2),
        FORMS[1]: weighted(new("graphseq.nn.UnrolledOuter"), 0.0),
    }


_STRENGTH = {"InvariantRisk": "scale", "VarianceRisk": "scale", "CORAL": "scale", "GroupDRO": "step_size"}


class _Shifted:
    """Training graphs as an arm wants them: with those of validation, or with rarer classes repeated."""

    pool = balance = False
    unit = 1.0

    def shaped(self, store: GraphStore, splits: dict[str, Tensor]) -> tuple[GraphStore, dict[str, Tensor]]:
        """Return the graphs with the splits of the arm; pooled graphs are also those that the epoch is chosen on."""
        train, y = splits["train"], store.field("y")
        if self.pool:
            train = torch.cat([train, splits["val"]])
            return store, {**splits, "train": train, "val": train}
        if self.balance:
            classes = y.flatten().long()[train]
            members = [train[classes == number] for number in classes.unique()]
            most = max(len(part) for part in members)
            train = torch.cat([part.repeat(-(-most // len(part)))[:most] for part in members])
        return store, {**splits, "train": train}


class MotifShift(_Shifted, MotifDataModule):
    """Motif graphs, trained on as the arm wants."""

    def __init__(self, *, pool: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.pool = pool

    def read(self) -> tuple[GraphStore, dict[str, Tensor]]:
        """Return the graphs and their splits."""
        return self.shaped(*super().read())


class SizeShift(_Shifted, TUDataModule):
    """A TU set whose test graphs are larger, in three environments of size."""

    def __init__(self, name: str, *, pool: bool = False, balance: bool = False, **options: Any) -> None:
        super().__init__(name, split="random", **options)
        self.pool, self.balance = pool, balance

    def read(self) -> tuple[GraphStore, dict[str, Tensor]]:
        """Return the graphs and their splits by size."""
        store = super().read()[0]
        nodes = store.num_nodes
        shuffled = torch.randperm(len(nodes), generator=torch.Generator().manual_seed(self.seed))
        if self.name == "PROTEINS":
            drawn = shuffled[nodes[shuffled] <= SMALL_NODES][:SMALL_GRAPHS]
            small = drawn[nodes[drawn].argsort(stable=True)]
            test = shuffled[~torch.isin(shuffled, drawn)]
            train, val = small.tensor_split([SMALL_GRAPHS * 4 // 5])
        else:
            ascending = shuffled[nodes[shuffled].argsort(stable=True)]
            train, val, test = ascending.tensor_split([len(nodes) * 60 // 100, len(nodes) * 75 // 100])
        env = torch.full((len(nodes),), 3)
        for number, part in enumerate(train.tensor_split(3)):
            env[part] = number
        return self.shaped(store.with_field("env", env), {"train": train, "val": val, "test": test})


class ScaffoldShift(_Shifted, MoleculeDataModule):
    """Molecules by scaffold, in four environments from frequent scaffolds to rare; numbers are standardised."""

    def __init__(self, name: Any, *, pool: bool = False, balance: bool = False, **options: Any) -> None:
        super().__init__(name, **options)
        self.pool, self.balance = pool, balance

    def read(self) -> tuple[GraphStore, dict[str, Tensor]]:
        """Return the molecules and their splits."""
        store, splits = super().read()
        train, y = splits["train"], store.field("y")
        env = torch.full((len(store),), 4)
        smiles = store.field("smiles").tolist()
        env[train] = _scaffold_parts([scaffold(smiles[place]) for place in train.tolist()], 4)
        if self.name == "esol":
            self.unit = float(y[train].std())
            y = (y - y[train].mean()) / self.unit
        for part in ("val", "test"):
            known = y[splits[part]]
            if self.name != "esol" and not bool(((known == 0).any(0) & (known == 1).any(0)).any()):
                raise DataError(f"no label of the {part} split of {self.name} has both classes; AUROC is not defined")
        return self.shaped(store.with_field("env", env).with_field("y", y), splits)


def _scaffold_parts(scaffolds: list[str], count: int) -> Tensor:
    """Return the part of each molecule: scaffolds from frequent to rare, whole, cut into parts of about equal size."""
    part, before = {}, 0
    for name, size in sorted(Counter(scaffolds).items(), key=lambda item: (-item[1], item[0])):
        part[name] = min(count - 1, int((before + size / 2) * count / len(scaffolds)))
        before += size
    return torch.unique(torch.tensor([part[name] for name in scaffolds]), return_inverse=True)[1]


@torch.no_grad()
def weights(task: Any, data: Any) -> Row:
    """Return the effective sample size of the weights of training graphs, their ratio, and the unit of the targets.

    The ratio is the mean weight of graphs whose ``spurious`` is not their class over that of the others.
    """
    row: Row = {"unit": data.unit, "ess": 1.0}
    if isinstance(task, Reweighted):
        index, store = data.splits["train"], data.graphs
        weight = task.weights(index)
        row["ess"] = float(effective_sample_size(weight))
        if isinstance(spurious := store.field("spurious"), Tensor):
            agrees = spurious[index] == store.field("y")[index]
            if bool(agrees.any()) and bool((~agrees).any()):
                row["weight_ratio"] = float(weight[~agrees].mean() / weight[agrees].mean())
    return row


def score_of(row: Row, test: str = "") -> float:
    """Return accuracy or AUROC in percent, or minus the error in the unit of the targets."""
    scores = row["test"][test]
    if "rmse" in scores:
        return -scores["rmse"] * row["unit"]
    return 100 * scores["acc" if "acc" in scores else "auroc"]


def chosen(results: Results, data: str, forms: bool) -> str:
    """Return the form of L2R, or the other baseline, with the best mean validation score."""
    means: dict[str, float] = {}
    for arm in results.arms(data=data):
        if arm != POOLED and (arm in FORMS) == forms:
            rows = results.select(arm, data=data).values()
            down = any("rmse" in row["test"][next(iter(row["test"]))] for row in rows)
            means[arm] = statistics.fmean(-row["val"] if down else row["val"] for row in rows)
    return max(means, key=means.__getitem__)


@dataclass(frozen=True)
class Wins:
    """L2R is above pooled training, and above the best other baseline by validation, in one setting."""

    letter: str
    data: str
    test: str = ""
    places: tuple[str, ...] = ()

    def check(self, results: Results) -> list[Check]:
        """Return both comparisons."""
        name = f"{self.data}, {self.test or 'test'}"
        if not {POOLED, *FORMS} <= set(results.arms(data=self.data)):
            return [Check(f"({self.letter}) {name}", None, 0.0, False)]
        ours, best = chosen(results, self.data, True), chosen(results, self.data, False)
        checks = []
        for other, why in ((POOLED, "pooled training"), (best, "best other on validation")):
            found = results.difference(ours, other, lambda row: score_of(row, self.test), data=self.data)
            holds = found is not None and found.above(0.0)
            text = f"({self.letter}) {name}: {ours} less {other} ({why})"
            checks.append(Check(text, interval_text(found), 0.0, holds))
        return checks


def table(results: Results, reported: dict[tuple[str, str], str] | None = None) -> list[Row]:
    """Return one line for each setting and arm, with numbers printed elsewhere by data and arm."""
    lines: list[Row] = []
    for data in results.axes["data"]:
        for test in results.rows[0]["test"]:
            for arm in results.arms(data=data):
                rows = list(results.select(arm, data=data).values())
                scores = [score_of(row, test) for row in rows]
                less = results.difference(arm, POOLED, lambda row, test=test: score_of(row, test), data=data)
                ratios = [row["weight_ratio"] for row in rows if "weight_ratio" in row]
                line = {"data": data, "test": test or "test", "arm": arm, "score": statistics.fmean(scores),
                        "deviation": statistics.stdev(scores) if len(scores) > 1 else None,
                        "less pooled ERM": interval_text(less) if arm != POOLED else None,
                        "ESS": statistics.fmean(row["ess"] for row in rows), "seeds": len(rows)}  # fmt: skip
                if ratios:
                    line["weight ratio"] = statistics.fmean(ratios)
                if reported:
                    line["reported elsewhere"] = reported.get((data, arm))
                lines.append(line)
    return lines
