"""What the effects of learned weights share: graphs that shift, the arms, and the rule, the same on all data."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from experiments.l2r import figures
from graphseq.bench import BestAbove, Effect, Row, Rule, Seeds, all_of, any_of, new, over
from graphseq.core import DataError
from graphseq.data import GraphSetDataModule, GraphStore, MoleculeDataModule, MotifDataModule, TUDataModule, scaffold
from graphseq.ops import effective_sample_size
from graphseq.tasks import Reweighted

POOLED, BALANCED = "ERM, train + validation", "class-balanced"
FORMS = ("L2R, first order", "L2R, unrolled")
PENALTIES, RATES, STEPS = (1.0, 10.0, 100.0), (0.02, 0.05, 0.2), (0.01, 0.1, 1.0)  # where one is fixed: the second
SMALL_NODES, SMALL_GRAPHS = 25, 500  # of the published split of PROTEINS
PROTOCOL = """\
Arms: *ERM*; *ERM, train + validation*, the control: it trains on the validation graphs too; *class-balanced*, where
classes are not, ERM with the graphs of the rarer class repeated; *IRM*, *V-REx*, *GroupDRO*, *CORAL* over the
environments; *all pairs*, weights that decorrelate all pairs of features (the objective of OOD-GNN and StableNet);
*L2R, first order*, weights that decorrelate clusters of features, learned on held-out graphs; *L2R, unrolled*, weights
that lower the validation loss after virtual steps of the head.

Strengths are penalties of 1, 10, 100, steps of GroupDRO of 0.01, 0.1, 1, and rates of the weights of 0.02, 0.05, 0.2 in
4 steps a batch; where one is fixed beforehand it is the second. Strength and epoch are chosen by the score on
validation; pooled training takes the epoch with the least loss on what it is trained on. No arm sees a test. ESS is the
effective sample size of the weights of the training graphs; *weight ratio*, the mean weight of graphs whose spurious
motif is not that of their class over the others. L2R is the form with the better mean validation score; the best other
baseline is chosen likewise, without pooling.
"""


def arms(environments: int, start_epoch: int, *, strengths: int = 1, balanced: bool = True) -> dict[str, Any]:
    """Return the overrides of all arms, those of methods with as many strengths as are tried."""

    def tried(task: str, key: str, values: Sequence[float], **method: Any) -> list[dict[str, Any]]:
        changes = {"class_path": f"graphseq.tasks.{task}", "start_epoch": start_epoch, **method}
        chosen = values if strengths == 3 else values[1:2]
        return over({f"model.{name}": value for name, value in changes.items()}, f"model.{key}", chosen)

    def weighted(name: str, held_out: float = 0.0, **init_args: Any) -> list[dict[str, Any]]:
        method = {"outer": new(f"graphseq.nn.{name}", **init_args), "held_out": held_out, "weight_steps": 4}
        optimizer = new("torch.optim.SparseAdam")
        return tried("Reweighted", "weight_optimizer.lr", RATES, weight_optimizer=optimizer, **method)

    def penalised(name: str, key: str = "scale", values: Sequence[float] = PENALTIES, **init_args: Any) -> Any:
        objective = new(f"graphseq.nn.{name}", **init_args)
        return tried("MultiEnvironment", f"objective.{key}", values, objective=objective)

    return {
        POOLED: {"data.pool": True, "choose": "val/loss"},
        "ERM": {},
        **({BALANCED: {"data.balance": True}} if balanced else {}),
        "IRM": penalised("InvariantRisk"),
        "V-REx": penalised("VarianceRisk"),
        "GroupDRO": penalised("GroupDRO", "step_size", STEPS, num_environments=environments),
        "CORAL": penalised("CORAL"),
        "all pairs": weighted("DecorrelationOuter", num_clusters="all"),
        FORMS[0]: weighted("DecorrelationOuter", held_out=0.2),
        FORMS[1]: weighted("UnrolledOuter"),
    }


class _Shifted(GraphSetDataModule):
    """Training graphs as an arm wants them: with those of validation, or with rarer classes repeated."""

    unit = 1.0

    def __init__(self, *, pool: bool = False, balance: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.pool, self.balance = pool, balance

    def read(self) -> tuple[GraphStore, dict[str, Tensor]]:
        """Return the graphs with the splits of the arm; pooled graphs are also those that the epoch is chosen on."""
        store, splits = self.shifted(*super().read())
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

    def shifted(self, store: GraphStore, splits: dict[str, Tensor]) -> tuple[GraphStore, dict[str, Tensor]]:
        """Return the graphs with their environments, and the splits between which they shift."""
        return store, splits


class MotifShift(_Shifted, MotifDataModule):
    """Motif graphs, which shift as they are."""


class SizeShift(_Shifted, TUDataModule):
    """A TU set whose test graphs are larger, in three environments of size."""

    def shifted(self, store: GraphStore, splits: dict[str, Tensor]) -> tuple[GraphStore, dict[str, Tensor]]:
        """Return the graphs and their splits by size."""
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
        return store.with_field("env", env), {"train": train, "val": val, "test": test}


class ScaffoldShift(_Shifted, MoleculeDataModule):
    """Molecules by scaffold, in four environments from frequent scaffolds to rare; numbers are standardised."""

    def shifted(self, store: GraphStore, splits: dict[str, Tensor]) -> tuple[GraphStore, dict[str, Tensor]]:
        """Return the molecules with standardised numbers; a split without both classes is refused."""
        train, y = splits["train"], store.field("y")
        env = torch.full((len(store),), 4)
        smiles = store.field("smiles").tolist()
        env[train] = _scaffold_parts([scaffold(smiles[place]) for place in train.tolist()], 4)
        if self.name == "esol":
            self.unit = float(y[train].std())
            return store.with_field("env", env).with_field("y", (y - y[train].mean()) / self.unit), splits
        for part in ("val", "test"):
            known = y[splits[part]]
            if not bool(((known == 0).any(0) & (known == 1).any(0)).any()):
                raise DataError(f"no label of the {part} split of {self.name} has both classes; AUROC is not defined")
        return store.with_field("env", env), splits


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


def validation(row: Row) -> float:
    """Return the validation score of a row, larger is better."""
    return -row["val"] if "rmse" in next(iter(row["test"].values())) else row["val"]


def shift_effect(*, protocol: str, seeds: int, base: Row, published: Row | None = None, **given: Any) -> Effect:
    """Return an effect on graphs that shift, with a claim for each set of the grid under each test.

    The common part is added to ``protocol``; ``published`` holds numbers printed elsewhere for each set: those beside
    ERM, all pairs and L2R of first order.
    """
    scores = {test: partial(score_of, test=test) for test in given.get("tests", ("",))}
    settings = {chr(65 + number): both for number, both in enumerate(product(given["grid"]["data"], scores))}
    printed = ((data, zip(("ERM", "all pairs", FORMS[0]), row, strict=True)) for data, row in (published or {}).items())
    return Effect(
        protocol=f"{protocol}\n{PROTOCOL}",
        base={**base, "model.class_path": "graphseq.tasks.SampleTask"},
        seeds=Seeds(first=100, default=seeds, full=10, into=("data.seed",)),
        score=scores,
        measure=weights,
        columns={"ESS": "ess", "weight ratio": "weight_ratio"},
        reported={f"{arm}@{data}": number for data, row in printed for arm, number in row},
        claims=[
            BestAbove(letter, FORMS, POOLED, data, scores[test], validation, test)
            for letter, (data, test) in settings.items()
        ],
        verdict=Rule(all_of(list(settings)), any_of(list(settings))),
        **figures.options(score_of, given["choose"], list(scores), columns=len(given["grid"]["data"])),
        **given,
    )
