import math
import statistics

import networkx
import numpy as np
import pandas
import pytest

from graphseq.analysis import graph_properties, predict_performance, property_correlations
from graphseq.sparsity import LayeredDAG, random_graph


def test_properties_by_hand():
    """A path of four vertices with one more edge, 0-2: distances by counting."""
    found = graph_properties(networkx.Graph([(0, 1), (1, 2), (2, 3), (0, 2)]))
    distance = {(0, 1): 1, (0, 2): 1, (0, 3): 2, (1, 2): 1, (1, 3): 2, (2, 3): 1}
    far = [max(d for pair, d in distance.items() if v in pair) for v in range(4)]
    near = [3 / sum(d for pair, d in distance.items() if v in pair) for v in range(4)]
    degree = [2 / 3, 2 / 3, 1, 1 / 3]
    between = [0, 0, 2 / 3, 0]  # of three pairs without it, 0-3 and 1-3 pass vertex 2
    edges = [1 / 6, 2 / 6, 2 / 6, 3 / 6]  # pairs that pass 0-1, 1-2, 0-2, 2-3, of six
    assert {name: found[name] for name in ("layers", "nodes", "edges", "source_nodes", "sink_nodes", "diameter")} == {
        "layers": 4, "nodes": 4, "edges": 4, "source_nodes": 1, "sink_nodes": 1, "diameter": 2}  # fmt: skip
    assert found["density"] == pytest.approx(4 / 12)
    assert found["average_shortest_path_length"] == pytest.approx(8 / 6)
    columns = {"eccentricity": far, "degree": degree, "closeness": near, "nodes_betweenness": between,
               "edge_betweenness": edges}  # fmt: skip
    for name, values in columns.items():
        assert found[f"{name}_mean"] == pytest.approx(statistics.fmean(values))
        assert found[f"{name}_var"] == pytest.approx(statistics.variance(values))
        assert found[f"{name}_std"] == pytest.approx(statistics.stdev(values))
    assert len(found) == 23


def test_properties_of_a_dag_are_those_of_its_graph():
    graph = random_graph("watts_strogatz", 12, neighbors=4, p=1.0, seed=1)
    assert graph_properties(graph) == graph_properties(LayeredDAG.from_graph(graph))
    other = graph_properties(LayeredDAG.from_graph(graph, "degree"))
    assert {name for name, value in graph_properties(graph).items() if not math.isclose(value, other[name])} <= {
        "layers", "source_nodes", "sink_nodes"}  # fmt: skip
    with pytest.raises(ValueError, match="disconnected"):
        graph_properties(networkx.Graph([(0, 1), (2, 3)]))
    with pytest.raises(ValueError, match="1 edge"):
        graph_properties(networkx.path_graph(2))


def table(rows=60, noise=0.1):
    generator = np.random.default_rng(0)
    columns = {name: generator.normal(size=rows) for name in ("source_nodes", "nodes", "degree_var")}
    columns["edges"] = columns["nodes"] + 0.3 * generator.normal(size=rows)
    columns["acc"] = columns["source_nodes"] + noise * generator.normal(size=rows)
    return pandas.DataFrame(columns)


def test_one_feature_predicts_as_well_as_all_where_it_is_the_cause():
    options = {"num_folds": 3, "num_repeats": 2}
    found = predict_performance(table(), "acc", **options)
    assert [(each.regressor, len(each.features)) for each in found] == [
        ("mean", 0), ("bayesian_ridge", 4), ("random_forest", 4), ("bayesian_ridge", 1), ("random_forest", 1)
    ]  # fmt: skip
    assert -0.2 < found[0].r2 <= 0
    assert all(each.r2 > 0.6 and each.r2_low <= each.r2 <= each.r2_high for each in found[1:])
    assert found[3].r2 > found[1].r2 - 0.02
    pure = predict_performance(table(noise=0), "degree_var", ["nodes", "edges"], baselines=[], **options)
    assert all(each.r2 < 0.15 for each in pure), "held-out predictions of nothing have no R2"
    again = predict_performance(table(), "acc", regressors=["bayesian_ridge"], baselines=[], **options)
    assert again == found[:2]


def test_correlations_are_those_of_the_residuals():
    columns = table()
    found = property_correlations(columns, "acc", ["degree_var", "edges", "source_nodes"], controls=["nodes"])
    assert found["edges"][0] == pytest.approx(columns["edges"].corr(columns["acc"]))
    fits = [columns[name] - np.polyval(np.polyfit(columns["nodes"], columns[name], 1), columns["nodes"])
            for name in ("edges", "acc")]  # fmt: skip
    assert found["edges"][1] == pytest.approx(np.corrcoef(*fits)[0, 1])
    fixed = property_correlations(columns, "acc", ["source_nodes"], controls=["source_nodes"])["source_nodes"]
    assert fixed[0] > 0.9
    assert math.isnan(fixed[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "f1"}, "no column 'f1'"),
        ({"features": ["width"]}, "no column 'width'"),
        ({"regressors": ["svm"]}, "'svm'"),
        ({"num_folds": 1}, "num_folds is 1"),
        ({"num_folds": 61}, "60 rows"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        predict_performance(table(), **{"target": "acc", **options})
    with pytest.raises(ValueError, match="'acc' is nan"):
        predict_performance(table().assign(acc=float("nan")), "acc")
    with pytest.raises(ValueError, match="3 rows"):
        property_correlations(table().head(3), "acc")


def test_a_constant_has_no_correlation():
    """Deviation and residual of 0.1, nine times, are rounding."""
    columns = {"c": [0.1] * 9, "y": np.random.default_rng(0).normal(size=9), "n": range(9)}
    assert all(math.isnan(value) for value in property_correlations(columns, "y", ["c"], controls=["n"])["c"])
