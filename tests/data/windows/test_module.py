"""Data modules of series: no leakage, checkpoints, precision, tables."""

from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from graphseq.core import DataError
from graphseq.data import DriverPanelDataModule, SeriesDataModule, SeriesTableDataModule, driver_panel
from graphseq.data.windows.calendar import times_after

OPTIONS = {"window": 6, "horizon": 3, "val": 12, "test": 15, "batch_size": 4}


def panel(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 80, 2, generator=torch.Generator().manual_seed(seed)) * 5 + 2


@pytest.mark.parametrize("scaling", ["standard", "max"])
def test_nothing_after_the_training_span_changes_training_batches(scaling: str) -> None:
    """Replacing every later value by noise leaves scaling and training batches bit-identical."""
    data = SeriesDataModule(panel(), scaling=scaling, **OPTIONS)
    changed = panel()
    changed[:, data.span :] = 1e6 * torch.randn(3, 80 - data.span, 2)
    other = SeriesDataModule(changed, scaling=scaling, **OPTIONS)
    for key in ("loc", "scale", "naive"):
        assert torch.equal(data.state_dict()[key], other.state_dict()[key])
    for one, two in zip(data.batches("train"), other.batches("train"), strict=True):
        assert torch.equal(one.x, two.x)
        assert torch.equal(one.y, two.y)
    # and what a test window reads does not depend on what it predicts
    begin = 80 - 15
    later = panel()
    later[:, begin:] = -1e6
    first, second = (next(SeriesDataModule(v, **OPTIONS).batches("test")) for v in (panel(), later))
    assert torch.equal(first.x[0], second.x[0])
    assert not torch.equal(first.y[0], second.y[0])


def test_evaluation_does_not_depend_on_the_batch_size_and_drops_no_window() -> None:
    for size in (1, 4, 100):
        data = SeriesDataModule(panel(), **{**OPTIONS, "eval_batch_size": size, "drop_last": True})
        batches = list(data.batches("test"))
        assert sum(map(len, batches)) == 15 - 3 + 1
        joined = torch.cat([batch.y for batch in batches])
        if size == 1:
            kept = joined
        assert torch.equal(joined, kept)


def test_rolling_origins_cover_the_test_steps() -> None:
    seen = []
    for fold in range(3):
        data = SeriesDataModule(panel(), **{**OPTIONS, "fold": fold, "num_folds": 3})
        seen += [step for start in data.splits["test"].tolist() for step in range(start + 6, start + 9)]
    assert set(seen) == set(range(65, 80))


def test_targets_by_name_and_sizes() -> None:
    data = DriverPanelDataModule(num_series=4, steps=120, targets=["follower 1", 0])
    assert (data.num_series, data.num_variables, data.num_targets, data.num_outputs) == (4, 4, 2, 2)
    assert data.target_names == ["follower 1", "driver 0"]
    batch, whole = (next(d.batches("test")) for d in (data, DriverPanelDataModule(num_series=4, steps=120)))
    assert torch.equal(batch.y, whole.y[..., [3, 0]])
    with pytest.raises(DataError, match="follower 9"):
        DriverPanelDataModule(steps=120, targets=["follower 9"]).load()


def test_checkpointed_scaling_is_used_for_other_series() -> None:
    data, other = SeriesDataModule(panel(), **OPTIONS), SeriesDataModule(panel(1) * 9, **OPTIONS)
    state = data.state_dict()
    before = next(other.batches("test"))
    other.load_state_dict(state)
    after = next(other.batches("test"))
    assert torch.equal(after.scale, next(data.batches("test")).scale)
    torch.testing.assert_close(after.restore(after.y), before.restore(before.y), rtol=1e-5, atol=1e-4)
    assert torch.load is not None
    with pytest.raises(DataError, match="variable"):
        SeriesDataModule(panel()[..., :1], **OPTIONS).load_state_dict(state)


def test_driver_panel_equals_its_definition() -> None:
    values = driver_panel(2, 30, 3, noise=0.0, level=1.0, generator=torch.Generator().manual_seed(3))
    assert torch.equal(values[:, 3:, 2:], values[:, :-3, :2])
    for name in ("num_series", "steps", "lag"):
        with pytest.raises(ValueError, match=name):
            driver_panel(**{"num_series": 2, "steps": 3, "lag": 1, name: 0})
    with pytest.raises(ValueError, match="noise"):
        DriverPanelDataModule(noise=-1.0)


def test_table_with_calendar(tmp_path: Path) -> None:
    path = tmp_path / "sales.csv"
    days = np.arange("2024-01-01", "2024-03-31", dtype="datetime64[D]")
    path.write_text("day,a,b\n" + "\n".join(f"{day},{n % 7},{n}" for n, day in enumerate(days)))
    data = SeriesTableDataModule(path, time="day", cycles=["weekday", "month"], **OPTIONS)
    assert data.num_known == 4
    batch = next(data.batches("val"))
    assert batch.known is not None
    assert batch.known.shape == (4, 9, 4)
    assert data.variable_names == ["a", "b"]
    assert data.times is not None
    with pytest.raises(DataError, match="cycles"):
        SeriesTableDataModule(path, cycles=["hour"], **OPTIONS).load()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"scaling": "minmax"}, "scaling"),
        ({"scale_per": "batch"}, "scale_per"),
        ({"season": 0}, "season"),
        ({"cycles": ["century"]}, "century"),
        ({"fold": 1}, "fold"),
        ({"window": 0}, "window"),
        ({"stride": 0}, "stride"),
        ({"val": 1.5}, "val"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_arguments(change: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SeriesDataModule(panel(), **{**OPTIONS, **change})


def test_bad_values() -> None:
    with pytest.raises(DataError, match="values"):
        SeriesDataModule("a.csv", **OPTIONS)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(DataError, match="edge_index"):
        SeriesDataModule(panel(), edge_weight=torch.ones(1), **OPTIONS)
    with pytest.raises(DataError, match="nodes"):
        SeriesDataModule(panel(), edge_index=torch.tensor([[0], [3]]), **OPTIONS)
    with pytest.raises(DataError, match="train"):
        SeriesDataModule(panel()[:, :20], **OPTIONS).load()
    constant = panel()
    constant[:, :, 1] = 4
    assert bool(next(SeriesDataModule(constant, **OPTIONS).batches("train")).x.isfinite().all())


def test_the_last_window_predicts_beyond_the_end(tmp_path: Path) -> None:
    data = SeriesDataModule(panel(), **OPTIONS)
    batch = next(data.batches("predict"))
    assert batch.mask is None
    assert bool(batch.y.isnan().all())
    assert batch.start is not None
    assert batch.start.tolist() == [74]
    torch.testing.assert_close(batch.restore(batch.x)[0], panel()[:, -6:], rtol=1e-5, atol=1e-4)
    known = torch.randn(83, 2)
    assert torch.equal(next(SeriesDataModule(panel(), known=known, **OPTIONS).batches("predict")).known[0], known[-9:])  # type: ignore[index]  # covariates were given
    assert "predict" not in SeriesDataModule(panel(), known=known[:80], **OPTIONS).splits
    with pytest.raises(DataError, match="known"):
        SeriesDataModule(panel(), known=known[:81], **OPTIONS).load()


@pytest.mark.parametrize(("dates", "expected"), [
    (["2024-01-01T00:00", "2024-01-01T00:15"], ["2024-01-01T00:30", "2024-01-01T00:45"]),
    (["2023-12-01", "2024-01-01"], ["2024-02-01", "2024-03-01"]),
    (["2023-12-25", "2024-01-01"], ["2024-01-08", "2024-01-15"]),
    (["2024-01-01"], ["2024-01-01", "2024-01-01"]),
])  # fmt: skip
def test_times_go_on_at_their_spacing(dates: list[str], expected: list[str]) -> None:
    found = times_after(np.array(dates, dtype="datetime64[ns]"), 2)
    assert np.array_equal(found, np.array(expected, dtype="datetime64[ns]"))


def test_numbers_of_steps_in_a_config_stay_whole() -> None:
    parser = ArgumentParser()
    parser.add_class_arguments(DriverPanelDataModule, "data")
    given = parser.parse_args(["--data.val=14", "--data.test=0.25", "--data.steps=200"])
    assert (given.data.val, type(given.data.val), given.data.test) == (14, int, 0.25)
    assert parser.instantiate_classes(given).data.split_sizes()["val"] == 14 - 4 + 1


def test_frames_and_arrays_are_series() -> None:
    import pandas

    values = panel()[0].numpy()
    options = {"window": 4, "horizon": 2}
    # options of several types in one dictionary
    frame = SeriesDataModule(pandas.DataFrame(values), known=pandas.DataFrame(values), **options)  # type: ignore[arg-type]
    torch.testing.assert_close(
        next(frame.batches("test")).x, next(SeriesDataModule(values, **options).batches("test")).x
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"values": np.zeros(50)}, r"values is \(50,\)"),
        ({"values": np.array([["a"]] * 50)}, "values is a ndarray of <U1"),
        ({"known": np.zeros(50)}, r"known is \(50,\)"),
        ({"values": np.full((50, 1), 1e300), "scaling": "none"}, r"step 0, .* 1e\+300"),
        ({"window": 4.5}, "window is 4.5"),
        ({"val": "10%"}, "val is '10%'"),
        ({"targets": "a"}, "targets is 'a'"),
    ],
)
def test_series_of_another_kind(given: dict[str, object], message: str) -> None:
    options = {"values": np.arange(50.0)[:, None], "window": 4, "horizon": 2, **given}
    with pytest.raises(ValueError, match=message):
        SeriesDataModule(**options).load()  # type: ignore[arg-type]  # wrong on purpose
