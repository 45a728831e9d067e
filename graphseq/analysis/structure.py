"""Properties of graphs, and how far they predict the performance of networks that are built from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphseq.sparsity.structures.layered import LayeredDAG

if TYPE_CHECKING:
    import networkx
    import pandas

__all__ = ["Prediction", "graph_properties", "predict_performance", "property_correlations"]


def graph_properties(graph: "LayeredDAG | networkx.Graph") -> dict[str, float]:
    r"""Return 23 properties of a graph that are used to predict the performance of networks.

    * ``layers``, ``nodes``, ``edges``, ``source_nodes`` (vertices of the first layer), ``sink_nodes`` (of the last);
    * ``diameter``, ``density`` :math:`E / (N (N - 1))`, half of that of networkx for an undirected graph,
      ``average_shortest_path_length``;
    * mean, sample variance and sample standard deviation of ``eccentricity``, ``degree`` centrality, ``closeness``,
      ``nodes_betweenness`` and ``edge_betweenness``, such as ``degree_mean``, ``degree_var`` and ``degree_std``.

    Those of the last two groups are of the undirected graph.

    Source: arXiv 2407.20601.

    Args:
        graph: a layered graph, or a connected networkx graph, which is oriented in the order of its vertices.

    Raises:
        ValueError: if the graph is not connected, or has fewer than two edges.

    Example:
        >>> found = graph_properties(LayeredDAG(4, [(0, 1), (1, 2), (2, 3)]))
        >>> len(found), found["diameter"], found["density"], found["eccentricity_mean"]
        (23, 3.0, 0.25, 2.5)
    """
    import networkx

    dag = graph if isinstance(graph, LayeredDAG) else LayeredDAG.from_graph(graph)
    plain = dag.to_networkx().to_undirected()
    nodes, edges = plain.number_of_nodes(), plain.number_of_edges()
    if edges < 2:
        raise ValueError(f"the graph has {edges} edge; the variance over edges needs at least 2")
    found: dict[str, float] = {
        "layers": len(dag.layers),
        "nodes": nodes,
        "edges": edges,
        "source_nodes": len(dag.layers[0]),
        "sink_nodes": len(dag.layers[-1]),
        "diameter": networkx.diameter(plain),
        "density": edges / (nodes * (nodes - 1)),
        "average_shortest_path_length": networkx.average_shortest_path_length(plain),
    }
    for name, values in {
        "eccentricity": networkx.eccentricity(plain),
        "degree": networkx.degree_centrality(plain),
        "closeness": networkx.closeness_centrality(plain),
        "nodes_betweenness": networkx.betweenness_centrality(plain),
        "edge_betweenness": networkx.edge_betweenness_centrality(plain),
    }.items():
        column = np.array(list(values.values()), dtype=np.float64)
        found |= {f"{name}_mean": column.mean(), f"{name}_var": column.var(ddof=1), f"{name}_std": column.std(ddof=1)}
    return {name: float(value) for name, value in found.items()}


@dataclass(frozen=True)
class Prediction:
    """Cross-validated performance of one regression.

    Args:
        regressor: name of the regression.
        features: names of the features that it reads.
        r2: coefficient of determination over all held-out predictions together, mean over the repetitions; 0 or less is
            no better than the mean of the training folds.
        r2_low: smallest of the repetitions.
        r2_high: largest of the repetitions.
        mae: mean absolute error of the held-out predictions, in units of the target.

    Example:
        >>> Prediction("mean", (), -0.01, -0.02, 0.0, 0.1).r2
        -0.01
    """

    regressor: str
    features: tuple[str, ...]
    r2: float
    r2_low: float
    r2_high: float
    mae: float


def predict_performance(
    table: "pandas.DataFrame | Mapping[str, Sequence[float]]",
    target: str,
    features: Sequence[str] | None = None,
    *,
    baselines: Sequence[Sequence[str]] = (("source_nodes",),),
    regressors: Sequence[str] = ("bayesian_ridge", "random_forest"),
    num_folds: int = 10,
    num_repeats: int = 5,
    seed: int = 0,
) -> list[Prediction]:
    r"""Predict a column from others by cross-validation, and compare with the mean and smaller sets of features.

    .. math:: R^2 = 1 - \sum_i (y_i - \hat y_i)^2 / \sum_i (y_i - \bar y)^2

    where each :math:`\hat y_i` is predicted by a model that did not see sample i; features are scaled within the
    training folds. All regressions see the same folds. The first entry is the trivial predictor ``mean``, the mean of
    the training folds.

    Source: arXiv 2407.20601. Differs from it: cross-validation in place of one split with 20 test rows, scaling within
    the folds, and baselines of few features, such as the width of the first layer alone.

    Args:
        table: a data frame, or columns by name; one row for each network.
        target: name of the column to predict, such as the accuracy.
        features: names of the columns to predict from; None for all others.
        baselines: further sets of columns to predict from.
        regressors: ``bayesian_ridge``, ``random_forest`` (100 trees) and ``ada_boost`` of scikit-learn.
        num_folds: number of folds, at least 2.
        num_repeats: number of repetitions with other folds, at least 1.
        seed: seed of the folds and of the randomised regressors.

    Returns:
        The result of the mean of the training folds, then that of each regressor on ``features`` and on each of
        ``baselines``.

    Raises:
        ValueError: if a column is missing or not finite, a regressor is unknown, or there are fewer rows than folds.

    Example:
        >>> x = np.linspace(0, 1, 40)
        >>> found = predict_performance({"x": x, "acc": 2 * x}, "acc", baselines=[], num_repeats=1)
        >>> [(each.regressor, round(each.r2, 1) + 0.0) for each in found][1]
        ('bayesian_ridge', 1.0)
    """
    from sklearn.dummy import DummyRegressor
    from sklearn.ensemble import AdaBoostRegressor, RandomForestRegressor
    from sklearn.linear_model import BayesianRidge
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    known = {
        "ada_boost": lambda: AdaBoostRegressor(random_state=seed),
        "bayesian_ridge": lambda: BayesianRidge(),
        "random_forest": lambda: RandomForestRegressor(n_estimators=100, random_state=seed),
    }
    if unknown := [name for name in regressors if name not in known]:
        raise ValueError(f"regressors has {unknown[0]!r}; there are {', '.join(known)}")
    if num_folds < 2 or num_repeats < 1:
        raise ValueError(f"num_folds is {num_folds} and num_repeats {num_repeats}; give at least 2 and 1")
    chosen = [name for name in table if name != target] if features is None else list(features)
    y = _column(table, target)
    if len(y) < num_folds:
        raise ValueError(f"the table has {len(y)} rows; {num_folds} folds need at least {num_folds}")

    def run(name: str, model: Any, columns: Sequence[str]) -> Prediction:
        x = np.stack([_column(table, column) for column in columns], 1) if columns else np.zeros((len(y), 1))
        scores, errors = [], []
        for repeat in range(num_repeats):
            folds = KFold(num_folds, shuffle=True, random_state=seed + repeat)
            found = cross_val_predict(make_pipeline(MinMaxScaler(), model()), x, y, cv=folds)
            scores.append(1 - np.square(y - found).sum() / np.square(y - y.mean()).sum())
            errors.append(np.abs(y - found).mean())
        r2 = float(np.mean(scores))
        return Prediction(name, tuple(columns), r2, float(min(scores)), float(max(scores)), float(np.mean(errors)))

    sets = [chosen, *(list(baseline) for baseline in baselines)]
    return [run("mean", DummyRegressor, [])] + [
        run(name, known[name], columns) for columns in sets for name in regressors
    ]


def property_correlations(
    table: "pandas.DataFrame | Mapping[str, Sequence[float]]",
    target: str,
    features: Sequence[str] | None = None,
    *,
    controls: Sequence[str] = ("nodes", "edges", "source_nodes"),
) -> dict[str, tuple[float, float]]:
    """Return the Pearson correlation of each column with the target, and the partial one given control columns.

    The partial correlation is that of the residuals of both after linear regression on the controls; NaN for a control
    itself, for a constant, and for what the controls determine.

    Source: arXiv 2407.20601, for the correlation; the partial one is not in it.

    Args:
        table: a data frame, or columns by name; one row for each network.
        target: name of the column to correlate with.
        features: names of the columns; None for all others.
        controls: names of the columns that the partial correlation controls for.

    Raises:
        ValueError: if a column is missing or not finite, or there are no more rows than controls.

    Example:
        >>> table = {"a": [1.0, 2.0, 3.0, 4.0], "b": [1.0, -1.0, -1.0, 1.0], "y": [2.0, 1.0, 2.0, 5.0]}
        >>> plain, partial = property_correlations(table, "y", ["b"], controls=["a"])["b"]
        >>> round(plain, 2), round(partial, 2)
        (0.67, 1.0)
    """
    y = _column(table, target)
    chosen = [name for name in table if name != target] if features is None else list(features)
    if len(y) < len(controls) + 3:
        raise ValueError(f"the table has {len(y)} rows; {len(controls)} controls need at least {len(controls) + 3}")
    given = np.stack([np.ones(len(y)), *(_column(table, name) for name in controls)], 1)

    def residual(values: np.ndarray) -> np.ndarray:
        left = values - given @ np.linalg.lstsq(given, values, rcond=None)[0]
        determined = np.ptp(values) == 0 or np.linalg.norm(left) <= 1e-9 * np.linalg.norm(values - values.mean())
        return np.zeros(len(y)) if determined else left

    found = {}
    for name in chosen:
        x = _column(table, name)
        found[name] = (_correlation(x, y), _correlation(residual(x), residual(y)))
    return found


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    if not np.ptp(x) or not np.ptp(y):  # the deviation of a constant may be rounding
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def _column(table: Any, name: str) -> np.ndarray:
    if name not in table:
        raise ValueError(f"the table has no column {name!r}; there are {', '.join(map(str, table))}")
    values = np.asarray(table[name], dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"the column {name!r} is {values[~np.isfinite(values)][0]} in a row; leave such rows out")
    return values
