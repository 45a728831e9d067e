"""Statistics of the training span, and splits by time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.core import DataError
from graphseq.data import Scaling, naive_error, window_split

NAN = float("nan")


def test_standard_scaling_equals_numpy_per_series_and_per_variable() -> None:
    values = torch.randn(3, 50, 2).double() * 5 + 3
    values[0, 4, 1] = NAN
    for per, axes in (("series", 1), ("variable", (0, 1))):
        found = Scaling.fit(values, "standard", per)  # type: ignore[arg-type]  # both are literals
        np.testing.assert_allclose(found.loc.numpy(), np.broadcast_to(np.nanmean(values.numpy(), axes), (3, 2)))
        np.testing.assert_allclose(found.scale.numpy(), np.broadcast_to(np.nanstd(values.numpy(), axes), (3, 2)))


def test_max_scaling_and_constants() -> None:
    values = torch.tensor([[[2.0, 0.1], [-4.0, 0.1]]])
    assert Scaling.fit(values, "max").scale.tolist() == [[4.0, pytest.approx(0.1)]]
    assert Scaling.fit(values, "standard").scale[0, 1] == 1
    assert Scaling.fit(torch.zeros(1, 3, 1), "max").scale.item() == 1
    assert Scaling.fit(values, "none").scale.tolist() == [[1.0, 1.0]]


def test_a_variable_without_values_is_refused() -> None:
    values = torch.randn(2, 5, 2)
    values[1, :, 0] = NAN
    with pytest.raises(DataError, match="series 1, variable 0"):
        Scaling.fit(values, "standard")
    assert bool(Scaling.fit(values, "standard", "variable").scale.isfinite().all())
    with pytest.raises(ValueError, match="minmax"):
        Scaling.fit(values, "minmax")  # type: ignore[arg-type]  # wrong on purpose


@given(st.integers(1, 4), st.integers(0, 99))
@settings(deadline=None)  # the first call loads libraries
def test_naive_error_equals_a_loop(season: int, seed: int) -> None:
    values = torch.randn(2, 9, 2, generator=torch.Generator().manual_seed(seed)).double()
    values[0, 3, 0] = NAN
    expected = torch.zeros(2, 2).double()
    for s in range(2):
        for v in range(2):
            terms = [abs(values[s, t, v] - values[s, t - season, v]) for t in range(season, 9)]
            expected[s, v] = torch.stack([term for term in terms if not term.isnan()]).mean()
    torch.testing.assert_close(naive_error(values, season), expected)


def test_naive_error_of_a_constant_is_unknown() -> None:
    assert bool(naive_error(torch.ones(1, 5, 1)).isnan().all())
    with pytest.raises(ValueError, match="season"):
        naive_error(torch.ones(1, 5, 1), 5)


@settings(deadline=None)
@given(
    st.integers(1, 6), st.integers(1, 5), st.integers(0, 12), st.integers(1, 20), st.integers(1, 3), st.integers(1, 4)
)
def test_predicted_steps_of_splits_are_disjoint_and_ordered(
    window: int, horizon: int, val: int, test: int, num_folds: int, eval_stride: int
) -> None:
    steps = 80
    folds = []
    for fold in range(num_folds):
        try:
            splits, span = window_split(
                steps, window, horizon, val=val, test=test, fold=fold, num_folds=num_folds, eval_stride=eval_stride
            )
        except DataError:
            assert 0 < val < horizon or test // num_folds < horizon
            return
        labels = {
            name: {step for start in starts.tolist() for step in range(start + window, start + window + horizon)}
            for name, starts in splits.items()
        }
        assert max(labels["train"]) < span
        assert len(splits["train"]) == span - window - horizon + 1
        if labels["val"]:
            assert span <= min(labels["val"])
            assert max(labels["val"]) < min(labels["test"])
        assert all(int(starts.min()) >= 0 for starts in splits.values() if len(starts))
        if eval_stride == 1:
            assert labels["val"] == set(range(span, span + val))
            folds.append(labels["test"])
    if folds:
        assert sorted(step for labels in folds for step in labels) == list(range(steps - test, steps))


def test_shares_are_rounded_shares_of_the_steps() -> None:
    splits, span = window_split(1000, 10, 5, val=0.1, test=0.25)
    assert span == 650
    assert int(splits["test"][-1]) + 15 == 1000


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"window": 0}, "window"),
        ({"horizon": -1}, "horizon"),
        ({"stride": 0}, "stride"),
        ({"val": 1.0}, "val"),
        ({"test": -0.1}, "test"),
        ({"test": True}, "test"),
        ({"fold": 2, "num_folds": 2}, "fold"),
    ],
)
def test_bad_arguments(change: dict[str, int], named: str) -> None:
    arguments = {"steps": 100, "window": 4, "horizon": 3, **change}
    with pytest.raises(ValueError, match=named):
        window_split(**arguments)


def test_too_short_series_name_the_split() -> None:
    with pytest.raises(DataError, match="train"):
        window_split(20, 10, 5, val=4, test=5)
    with pytest.raises(DataError, match="val"):
        window_split(100, 10, 5, val=4, test=5)
    with pytest.raises(DataError, match="test"):
        window_split(100, 10, 5, val=0, test=9, num_folds=2)
    splits, _ = window_split(100, 10, 5, val=0, test=0)
    assert not len(splits["val"])
    assert not len(splits["test"])
