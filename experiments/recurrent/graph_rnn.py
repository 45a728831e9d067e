"""Recurrent networks on random graphs: does a property of the graph predict the accuracy, or the width of its input?"""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphseq.analysis import Prediction, graph_properties, predict_performance
from graphseq.bench import Above, Check, Effect, Quantity, Results, Row, Rule, Scale, Seeds, all_of, new
from graphseq.bench.records.drawing import set_finding
from graphseq.sparsity import LayeredDAG, RandomDAG

PROTOCOL = """\
Networks: GRU units on a random graph of 10 to 30 vertices, drawn by the seed: for even seeds Barabasi-Albert graphs
with a tenth of the vertices as edges of a new one, for odd seeds Watts-Strogatz graphs with a fifth of them as
neighbours, all edges rewired, as in the thesis. Arms: *paper*, its wiring: a further cell for every pair of layers
that edges join, the last layer is read, and the embedding is as wide as the first layer; *free width*: edges over a
layer enter the input of the cell, all sinks are read, and the embedding has 16 units whatever the graph. Both see the
same graphs.

Task: 5,000 generated strings of the Reber grammar of 11 to 30 letters, half of the invalid ones one letter away from
a valid one; the rule of pairs of letters is printed beside the accuracy. 8 epochs of Adam at 0.005 in batches of 64,
gradients clipped at 5; the epoch of the best validation accuracy is tested once. 40 graphs, seeds from 1000 on, which
nothing was run with; the quick scale tried the code with seed 900. At scale ``full`` 100 graphs of up to 50 vertices,
and all four cells.

Prediction of the accuracy from 23 properties of the graph by a random forest, 10-fold cross-validation, 3
repetitions, R2 over all held-out predictions; beside it the mean of the training folds, and the number of source
vertices alone.

Seen before this rule was written: the numbers of the thesis, and those of the specification, which found in its
tables that the width of the first layer alone predicts as well as all properties; one epoch of the quick scale, and two
epochs of two cells with seeds 900 and 901, to time them.

Conditions: (A) with the wiring of the paper, R2 from all properties is at least 0.2; (B) it exceeds that from the
source vertices alone by 0.05; (C) with the free width, where no property sets the width of the input, R2 from all
properties is still at least 0.2. (D) Free width less paper is above 0 in accuracy; (E) the free width beats the rule
of pairs by 0.01.

Rule: *reproduced* if (A), (B) and (C) hold: properties of the graph tell the performance; *partly* if (A) does: they
do, but through the wiring; else *not reproduced*. (D) and (E) are reported.
"""

CELLS = {"GRU": "gru", "LSTM": "lstm", "RNN-tanh": "rnn_tanh", "RNN-ReLU": "rnn_relu"}
LARGEST = {"quick": 12, "default": 30, "full": 50}
WIDTH = 16
PAPER, FREE = "paper", "free width"
ARMS = {
    PAPER: {"model.model.recurrent.skip": "cell", "model.model.recurrent.readout": "last"},
    FREE: {"model.model.recurrent.skip": "input", "model.model.recurrent.readout": "sinks"},
}


def structure(seed: int, scale: Scale) -> LayeredDAG:
    """Return the graph of a seed."""
    vertices = int(np.random.default_rng(seed).integers(10, LARGEST[scale] + 1))
    if seed % 2 == 0:
        return RandomDAG("barabasi_albert", vertices, {"edges": vertices // 10}, seed=seed)
    return RandomDAG("watts_strogatz", vertices, {"neighbors": max(2, vertices // 5 // 2 * 2), "p": 1.0}, seed=seed)


def run(cell: Row, scale: Scale, effect: Effect) -> Row:
    """Train the network on the graph of the seed."""
    dag = structure(cell["seed"], scale)
    width = len(dag.layers[0]) if cell["arm"] == PAPER else WIDTH
    edges = dag.edge_index.T.tolist()
    more = {
        "model.model.hidden_channels": width,
        "model.model.recurrent.input_size": width,
        "model.model.recurrent.structure": new(
            "graphseq.sparsity.LayeredDAG", num_vertices=dag.num_vertices, edges=edges
        ),
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*do not reach the read-out")
        row = effect.train(cell, scale, more, measure)
    return {**row, "properties": graph_properties(dag)}


def measure(task: Any, data: Any) -> Row:
    """Return what pairs of letters reach, the vertices that are not read, and the number of weights."""
    network = task.model.recurrent
    return {
        "pairs": data.pair_accuracy, "unread": len(network.unread_vertices), "weights": network.num_weights()
    }  # fmt: skip


def table_of(results: Results, arm: str, cell: str = "GRU") -> dict[str, list[float]] | None:
    """Return properties and accuracy of all graphs of an arm, by column; None with fewer than twenty."""
    rows = list(results.select(f"{arm}@{cell}").values())
    if len(rows) < 20:
        return None
    columns = {name: [row["properties"][name] for row in rows] for name in rows[0]["properties"]}
    return {**columns, "accuracy": [row["test"][""]["acc"] for row in rows]}


@functools.lru_cache
def _predicted(table: tuple[tuple[str, tuple[float, ...]], ...]) -> tuple[Prediction, ...]:
    columns = {name: list(values) for name, values in table}
    return tuple(predict_performance(columns, "accuracy", regressors=["random_forest"], num_repeats=3))


def predictions(results: Results, arm: str) -> dict[str, float] | None:
    """Return R2 of the mean, of all properties and of the source vertices alone."""
    table = table_of(results, arm)
    if table is None:
        return None
    mean, everything, width = _predicted(tuple((name, tuple(values)) for name, values in table.items()))
    return {"mean": mean.r2, "all": everything.r2, "source_nodes": width.r2}


def r2(arm: str, less: str = "") -> Callable[[Results], float | None]:
    """Return the function that gives R2 from all properties, less that of another set of features."""

    def value(results: Results) -> float | None:
        found = predictions(results, arm)
        return None if found is None else found["all"] - (found[less] if less else 0.0)

    return value


def accuracy(row: Row) -> float:
    """Return the test accuracy."""
    return row["test"][""]["acc"]


def finding(results: Results, checks: Sequence[Check | Row]) -> str:
    """Return R2 of both arms in a sentence."""
    found = {arm: predictions(results, arm) for arm in ARMS}
    if None in found.values():
        return "there are too few graphs"
    text = [
        f"{arm}: R2 {values['all']:.2f} from all properties, {values['source_nodes']:.2f} from the sources alone"
        for arm, values in found.items() if values is not None
    ]  # fmt: skip
    return "; ".join(text)


def figure(results: Results, drawn: Any, text: str, reruns: Sequence[Results] = ()) -> None:
    """Draw the accuracy of every graph over the number of its sources and over its number of vertices."""
    grid = drawn.subplots(len(ARMS), 2, squeeze=False, sharey=True)
    drawn.set_size_inches(7, 6)
    for row, arm in zip(grid, ARMS, strict=True):
        table = table_of(results, arm)
        for axes, name in zip(row, ("source_nodes", "nodes"), strict=True):
            if table is not None:
                axes.scatter(table[name], table["accuracy"], s=12, color="#0072B2")
            axes.set_xlabel("vertices of the first layer" if name == "source_nodes" else "vertices")
            axes.set_title(arm, fontsize=9)
        row[0].set_ylabel("test accuracy")
    set_finding(drawn, text)


effect = Effect(
    name="effect.graph_rnn",
    source="arXiv 2407.20601",
    protocol=PROTOCOL,
    config="configs/sequence/graph_rnn_reber.yaml",
    base={
        "trainer.max_epochs": 8,
        "model.optimizer.lr": 0.005,
        "data.num_strings": 5000,
        "data.hard_fraction": 0.5,
        "data.max_length": 30,
        "data.fractions": [0.6, 0.2, 0.2],
    },
    arms=ARMS,
    grid={"cell": {name: {"model.model.recurrent.cell": cell} for name, cell in CELLS.items()}},
    scales={
        "quick": {"trainer.max_epochs": 1, "trainer.limit_train_batches": 3, "data.num_strings": 300},
        "full": {"trainer.max_epochs": 15, "data.num_strings": 25_000, "data.max_length": 53},
    },
    seeds=Seeds(first=1000, default=40, full=100, into=("data.seed",)),
    where=lambda cell, scale: scale == "full" or cell["cell"] == "GRU",
    run=run,
    score=accuracy,
    choose="val/acc",
    columns={
        "rule of pairs": lambda row: row["pairs"],
        "vertices not read": lambda row: row["unread"],
        "weights": lambda row: row["weights"],
    },
    claims=[
        Quantity("A", "R2 from all properties, wiring of the paper", r2(PAPER), 0.2),
        Quantity("B", "and less that from the source vertices alone", r2(PAPER, "source_nodes"), 0.05),
        Quantity("C", "R2 from all properties, free width", r2(FREE), 0.2),
        Above("D", f"{FREE}@GRU - {PAPER}@GRU"),
        Above("E", f"{FREE}@GRU", 0.01, "free width less the rule of pairs", lambda row: accuracy(row) - row["pairs"]),
    ],
    verdict=Rule(reproduced=all_of("ABC"), partly=all_of("A")),
    unit="accuracy",
    finding=finding,
    figure=figure,
)
