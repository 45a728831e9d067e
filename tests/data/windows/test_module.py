"""Data modules of series: no leakage, checkpoints, precision, tables."""

from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer

from graphseq.core import DataError
from graphseq.data import DriverPanelDataModule, SeriesDataModule, SeriesTableDataModule, driver_panel
from graphseq.data.precision import TRUE_PRECISIONS
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


def test_values_that_are_large_beside_their_changes_are_restored() -> None:
    values = 1e9 + torch.arange(60, dtype=torch.float64)[:, None] % 7
    data = SeriesDataModule(values, window=5, horizon=2)
    batch = next(data.batches("test"))
    expected = torch.stack([values[start + 5 : start + 7] for start in data.splits["test"].tolist()])[:, None]
    torch.testing.assert_close(batch.restore(batch.y), expected, rtol=0, atol=1e-5)
    assert next(SeriesDataModule(panel(), **OPTIONS).batches("test")).loc.dtype == torch.float32


def test_a_checkpoint_scales_series_by_their_names(tmp_path: Path) -> None:
    """Rows in another order give the same series another position."""
    rows = {name: [f"{n},{name},{n % 5 * size + size}" for n in range(40)] for name, size in (("x", 1), ("y", 100))}
    states = []
    modules = []
    for order in ("xy", "yx", "xz"):
        path = tmp_path / f"{order}.csv"
        named = {**rows, "z": [row.replace("y", "z") for row in rows["y"]]}
        path.write_text("\n".join(["t,s,a", *(row for name in order for row in named[name])]))
        modules.append(SeriesTableDataModule(path, time="t", series="s", window=4, horizon=2))
        states.append(modules[-1].state_dict())
    first, second, third = modules
    second.load_state_dict(states[0])
    for key in ("loc", "scale", "naive"):
        assert second.state_dict()[key].tolist() == first.state_dict()[key].flip(0).tolist()
    torch.testing.assert_close(next(second.batches("test")).x, next(first.batches("test")).x.flip(1))
    with pytest.warns(UserWarning, match="trained on series x, y, these are x, z"):
        third.load_state_dict(states[0])
    del states[0]["series"]  # as in checkpoints of earlier versions
    SeriesTableDataModule(first.path, time="t", series="s", window=4, horizon=2).load_state_dict(states[0])


def test_weights_of_edges_that_change_reach_the_last_window() -> None:
    weight = torch.rand(3, 60)
    edges = torch.tensor([[0, 1, 2], [1, 2, 0]])
    data = SeriesDataModule(panel()[:, :60], edge_index=edges, edge_weight=weight.T, **OPTIONS)  # not contiguous
    for split in ("test", "predict"):
        batch = next(data.batches(split))  # type: ignore[arg-type]  # a split of series alone
        assert batch.edge_weight is not None
        assert batch.start is not None
        start = int(batch.start[0])
        assert torch.equal(batch.edge_weight[0], weight.T[start : start + 6])


def test_masked_entries_are_missing() -> None:
    masked = np.ma.masked_greater(np.where(np.arange(60) % 9 == 0, 1e20, 1.0 + np.arange(60) % 4)[:, None], 1e10)
    span = SeriesDataModule(masked, window=4, horizon=2).training_span()
    assert float(span.original.max()) == 4.0
    assert not bool(span.observed[0, ::9].any())


def test_a_season_longer_than_the_training_span_has_no_naive_error() -> None:
    options = {"window": 4, "horizon": 2, "val": 5, "test": 10}
    for season, known in ((44, True), (45, False)):
        data = SeriesDataModule(panel()[:, :60], season=season, **options)
        assert bool(data.state_dict()["naive"].isfinite().all()) == known


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
def test_targets_are_exact_in_half_precision(precision: str) -> None:
    data = SeriesDataModule(panel() + 1e5, **OPTIONS)
    exact = next(data.batches("test"))
    data.trainer = Trainer(accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False)
    data.setup("test")
    cast = data.trainer.precision_plugin.convert_input(exact)
    batch = data.on_after_batch_transfer(cast, 0)
    assert batch.x.dtype == TRUE_PRECISIONS[precision]
    for name in ("y", "loc", "scale", "naive"):
        assert torch.equal(getattr(batch, name), getattr(exact, name))
