"""Errors of forecasts against numpy, over batches and with gaps."""

import numpy as np
import pytest
import torch
import torchmetrics
from sklearn.metrics import mean_squared_log_error
from torchmetrics import MetricCollection

from graphseq.metrics import (
    AtStep,
    MaskedMeanAbsoluteError,
    MaskedMeanSquaredLogError,
    MaskedRootMeanSquaredError,
    MaskedSymmetricMeanAbsolutePercentageError,
    MeanAbsoluteScaledError,
    MeanPinballLoss,
    masked_mean_squared_log_error,
    masked_symmetric_mean_absolute_percentage_error,
    mean_absolute_scaled_error,
)


def pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prediction, target = (torch.rand(5, 2, 3, 2, generator=generator) * 9 for _ in range(2))
    target[torch.rand(target.shape, generator=generator) < 0.3] = torch.nan
    return prediction, target


def test_log_error_equals_sklearn() -> None:
    prediction, target = pair()
    known = ~target.isnan()
    expected = mean_squared_log_error(target[known].numpy(), prediction[known].numpy())
    assert float(masked_mean_squared_log_error(prediction, target)) == pytest.approx(expected, rel=1e-5)
    assert float(masked_mean_squared_log_error(prediction - 100, target)) == pytest.approx(
        mean_squared_log_error(target[known].numpy(), np.zeros(int(known.sum()))), rel=1e-5
    )
    with pytest.raises(ValueError, match="at least 0"):
        masked_mean_squared_log_error(prediction, target - 100)


def test_scaled_and_symmetric_errors_equal_numpy() -> None:
    prediction, target = pair()
    naive = torch.rand(2, 1, 2) + 0.5
    naive[0, 0, 1] = torch.nan
    gap = (prediction - target).abs().numpy() / naive.numpy()
    assert float(mean_absolute_scaled_error(prediction, target, naive)) == pytest.approx(np.nanmean(gap), rel=1e-5)
    share = 2 * np.abs(prediction - target) / (np.abs(prediction) + np.abs(target))
    expected = float(np.nanmean(share))
    assert float(masked_symmetric_mean_absolute_percentage_error(prediction, target)) == pytest.approx(
        expected, rel=1e-5
    )
    assert float(masked_symmetric_mean_absolute_percentage_error(torch.zeros(1), torch.zeros(1))) == 0


@pytest.mark.parametrize("sizes", [[5], [1, 4], [1, 1, 1, 1, 1]])
def test_metrics_over_batches_equal_their_functions(sizes: list[int]) -> None:
    prediction, target = pair()
    naive = torch.rand(2, 1, 2) + 0.5
    log, symmetric, scaled = (
        MaskedMeanSquaredLogError(), MaskedSymmetricMeanAbsolutePercentageError(), MeanAbsoluteScaledError(),
    )  # fmt: skip
    for part, known in zip(prediction.split(sizes), target.split(sizes), strict=True):
        log.update(part, known)
        symmetric.update(part, known)
        scaled.update(part, known, naive)
    torch.testing.assert_close(log.compute(), masked_mean_squared_log_error(prediction, target))
    torch.testing.assert_close(symmetric.compute(), masked_symmetric_mean_absolute_percentage_error(prediction, target))
    torch.testing.assert_close(scaled.compute(), mean_absolute_scaled_error(prediction, target, naive))


def test_a_batch_without_known_targets_contributes_nothing() -> None:
    prediction, target = pair()
    metric = MeanAbsoluteScaledError()
    metric.update(prediction, target, torch.ones(2, 1, 2))
    before = metric.compute()
    metric.update(prediction, torch.full_like(target, torch.nan), torch.ones(2, 1, 2))
    assert metric.compute() == before


def test_errors_of_a_step_and_a_variable() -> None:
    prediction, target = pair()
    metric = AtStep(MaskedMeanAbsoluteError(), step=2, variable=1)
    value = metric(prediction, target)
    expected = np.nanmean((prediction - target).abs()[:, :, 1, 1].numpy())
    assert float(value) == pytest.approx(expected, rel=1e-5)
    metric.update(prediction, target)
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-5)
    metric.reset()
    assert int(metric.metric.total) == 0  # type: ignore[arg-type]  # a tensor
    for wrong in ({"step": 0}, {"variable": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            AtStep(MaskedMeanAbsoluteError(), **wrong)
    with pytest.raises(ValueError, match="step is 4"):
        AtStep(MaskedMeanAbsoluteError(), step=4).update(prediction, target)
    with pytest.raises(ValueError, match="variable is 2"):
        AtStep(MaskedMeanAbsoluteError(), variable=2).update(prediction, target)


METRICS = {
    "mae": MaskedMeanAbsoluteError,
    "rmse": MaskedRootMeanSquaredError,
    "msle": MaskedMeanSquaredLogError,
    "smape": MaskedSymmetricMeanAbsolutePercentageError,
    "mase": MeanAbsoluteScaledError,
    "mae@2": lambda: AtStep(MaskedMeanAbsoluteError(), step=2),
}


@pytest.mark.parametrize("name", METRICS)
def test_states_of_processes_are_added(name: str) -> None:
    # what torch.distributed would gather: the states of two processes with shards of unequal size, the second of which
    # has a batch without a known target
    prediction, target = pair()
    unknown = torch.full_like(target[:1], torch.nan)
    shards = [[(prediction[:1], target[:1])], [(prediction[1:], target[1:]), (prediction[:1], unknown)]]
    more = {"naive": torch.rand(2, 1, 2) + 0.5} if name == "mase" else {}
    made = [METRICS[name]() for _ in range(3)]
    for metric, shard in zip(made, [*shards, [(prediction, target)]], strict=True):
        for part, known in shard:
            metric.update(part, known, **more)
    parts = [getattr(metric, "metric", metric) for metric in made[:2]]
    states = dict(parts[1].metric_state)

    def gather(value: torch.Tensor, group: object = None) -> list[torch.Tensor]:
        key = next(key for key, own in parts[0].metric_state.items() if own is value)
        return [value, states[key]]

    parts[0].dist_sync_fn = gather
    parts[0].distributed_available_fn = lambda: True
    torch.testing.assert_close(made[0].compute(), made[2].compute())
    assert set(parts[0]._reductions.values()) == {torchmetrics.utilities.data.dim_zero_sum}


def test_forecasts_over_other_spans_and_naive_errors_of_other_shapes():
    y, naive = torch.rand(2, 3, 4, 2), torch.rand(3, 1, 2) + 0.1
    with pytest.raises(ValueError, match=r"\(2, 3, 2, 2\), targets \(2, 3, 4, 2\)"):
        AtStep(MaskedMeanAbsoluteError(), step=2).update(y[:, :, :2], y)
    for metric, step, error, said in [
        (MaskedMeanAbsoluteError, 1, TypeError, "class MaskedMeanAbsoluteError"),
        ("mae", 1, TypeError, "a str"),
        (MaskedMeanAbsoluteError(), 1.5, ValueError, r"step is 1\.5"),
    ]:
        with pytest.raises(error, match=said):
            AtStep(metric, step=step)
    for preds, unit, said in [
        (y[:, :1], naive, r"predictions are \(2, 1, 4, 2\)"),  # dividing would have made the shapes equal
        (y, torch.rand(5, 2, 3, 1, 2), r"naive is \(5, 2, 3, 1, 2\)"),
        (y, torch.rand(3, 4, 2), r"naive is \(3, 4, 2\)"),
        (y, naive * 0, "NaN for a variable that was constant"),
        (y, -naive, "NaN for a variable that was constant"),
    ]:
        with pytest.raises(ValueError, match=said):
            mean_absolute_scaled_error(preds, y, unit)
        with pytest.raises(ValueError, match=said):
            MeanAbsoluteScaledError().update(preds, y, unit)


def test_states_of_a_step_are_merged():
    y, z = torch.rand(2, 3, 4, 2), torch.rand(2, 3, 4, 2)
    parts = [AtStep(MaskedMeanAbsoluteError(), step=2) for _ in range(2)]
    parts[0].update(y, z)
    parts[1].update(2 * y, z)
    parts[0].merge_state(parts[1])
    torch.testing.assert_close(parts[0].compute(), (torch.cat([y, 2 * y]) - z.repeat(2, 1, 1, 1))[:, :, 1].abs().mean())
    with pytest.raises(ValueError, match="step 1"):
        parts[0].merge_state(AtStep(MaskedMeanAbsoluteError(), step=1))


def test_quantile_levels_and_half_precision():
    for levels in ([], [0.5, 1.0], [50], [float("nan")], "0.5"):
        with pytest.raises(ValueError, match="levels is"):
            MeanPinballLoss(levels)
    metric = MeanPinballLoss([0.5])
    metric.update(torch.full((1, 1), 6e4, dtype=torch.float16), torch.full((1,), -6e4, dtype=torch.float16))
    assert float(metric.compute()) == pytest.approx(6e4, rel=1e-3)


def test_sums_of_a_step_have_the_type_of_the_collection():
    """In float32 16,777,216 + 1 is 16,777,216."""
    metric = MetricCollection({"mae@1": AtStep(MaskedMeanAbsoluteError(), step=1)}).set_dtype(torch.float64)
    for error in (2.0**24, 1.0, 1.0):
        metric.update(torch.full((1, 1, 2, 1), error), torch.zeros(1, 1, 2, 1))
    assert float(metric.compute()["mae@1"]) * 3 == 2**24 + 2
