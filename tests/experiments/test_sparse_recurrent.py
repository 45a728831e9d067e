"""The experiments on sparse recurrent networks: the graphs of the seeds, equal loops, and what the claims read."""

import pytest

from experiments.recurrent import graph_rnn, rnn_pruning
from experiments.sparse import graph_rnn as speeds
from graphseq.analysis import predict_performance
from graphseq.bench.speeds.speed import Setting


def test_loops_over_vertices_and_steps_equal_the_layers():
    for case in speeds.cases("quick"):
        subject = speeds.prepare(case, Setting("quick"))
        calls = {name: make(subject) for name, make in speeds.speed.contenders.items()}
        assert speeds.speed.equal(subject, calls)["difference"] < 1e-5
    large = {"vertices": 8, "steps": 2, "batch": 33, "direction": "forward", "cell": "gru"}
    assert speeds.per_vertex(speeds.prepare(large, Setting("quick"))) is None


def test_twice_the_steps_are_claimed_by_direction():
    rows = [{"vertices": 64, "steps": steps, "direction": "forward", "ms": {"layered": ms}}
            for steps, ms in ((100, 1.0), (200, 2.5))]  # fmt: skip
    (check,) = speeds.twice_the_steps(rows)
    assert (check.value, check.holds) == (2.5, False)


def test_graphs_are_drawn_by_the_seed_alone():
    kinds = [graph_rnn.structure(seed, "default") for seed in range(900, 906)]
    assert all(10 <= dag.num_vertices <= 30 for dag in kinds)
    again = graph_rnn.structure(900, "default")
    assert again.edge_index.tolist() == kinds[0].edge_index.tolist()
    assert len(kinds[0].layers[0]) == kinds[0].num_vertices // 10, "as many sources as edges of a new vertex"


def test_width_of_the_input_is_told_from_properties(monkeypatch):
    def linear(table, target, **options):
        return predict_performance(table, target, regressors=["bayesian_ridge"], num_repeats=1)

    monkeypatch.setattr(graph_rnn, "predict_performance", linear)  # a forest takes a minute

    def rows(accuracy):
        for seed in range(40):
            properties = {"source_nodes": seed % 5, "nodes": seed % 7, "edges": seed % 3}
            for arm in graph_rnn.ARMS:
                yield {"cell": "GRU", "arm": arm, "seed": seed, "properties": properties, "pairs": 0.5,
                       "unread": 0, "weights": 1, "test": {"": {"acc": accuracy(arm, properties)}}}  # fmt: skip

    width = graph_rnn.effect.conclude(list(rows(lambda arm, each: each["source_nodes"] / 10)))
    assert width.verdict == "partly"
    assert [check.holds for check in width.checks[:3]] == [True, False, True]
    both = graph_rnn.effect.conclude(list(rows(lambda arm, each: (each["source_nodes"] + each["nodes"]) / 20)))
    assert both.verdict == "reproduced"


def pruned(value=0.99, **changes):
    found = {name: {"after": value, "curve": [value] * 3, "epochs_to_regain": 0} for name in rnn_pruning.PRUNINGS}
    for name, number in {"both 90 %": 0.6, "input 100 %": 0.5, **changes}.items():
        curve = found[name]["curve"] if name == "both 90 %" else [number] * 3
        found[name] = {**found[name], "after": number, "curve": curve}
    return found


def test_rule_of_pruning():
    def rows(**plain):
        for task in rnn_pruning.TASKS:
            for arm in rnn_pruning.CELLS:
                hidden = {"hidden 100 %": 0.6} if arm.startswith("RNN") else {}
                for seed in range(2):
                    yield {"task": task, "arm": arm, "seed": seed, "base": 0.99, "pairs": 0.9,
                           "prunings": pruned(**{**hidden, **plain})}  # fmt: skip

    assert rnn_pruning.effect.conclude(list(rows())).verdict == "reproduced"
    assert rnn_pruning.effect.conclude(list(rows(**{"both 60 %": 0.9}))).verdict == "partly"
    lost = rnn_pruning.effect.conclude(list(rows(**{"hidden 100 %": 0.6})))
    assert lost.verdict == "not reproduced"
    assert {check.claim[1] for check in lost.checks if not check.holds} == {"D"}


@pytest.mark.slow
@pytest.mark.parametrize("effect", [graph_rnn.effect, rnn_pruning.effect])
def test_a_cell_of_each_arm_runs(effect):
    if effect is rnn_pruning.effect:
        cells = [cell for cell in effect.cells("quick", None) if cell["task"] == "embedded" and cell["arm"] == "GRU"]
    else:
        cells = effect.cells("quick", None)
    for cell in cells:
        row = effect.run(cell, "quick")
        assert 0 <= effect.score(row) <= 1
        assert row["pairs"] >= 0.5
