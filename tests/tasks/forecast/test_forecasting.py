"""Training of forecasts: loss, metrics in original units, missing values, fitting, resume."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor, nn

import graphseq
from graphseq.core import DataError, Recorded
from graphseq.data import DriverPanelDataModule, SeriesDataModule, SeriesTableDataModule
from graphseq.models import NormalizedWindows, Persistence, ReGENN
from graphseq.tasks import Forecasting

NAN = float("nan")


class Last(Recorded, nn.Module):
    """The last step repeated, plus a learned constant."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, -1:].expand(-1, -1, self.horizon, -1) + self.shift


class Decoder(Last):
    def forward_with_target(self, x: Tensor, target: Tensor, share: float, known: Tensor | None = None) -> Tensor:
        self.share = share
        return self(x)


def trainer(folder: Path, **options: object) -> Trainer:
    settings: dict[str, object] = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False,
                                   "enable_model_summary": False, "default_root_dir": folder}  # fmt: skip
    return Trainer(**{**settings, **options})  # type: ignore[arg-type]  # options by name


def values(*, gaps: bool = True) -> Tensor:
    made = torch.rand(2, 70, 3, generator=torch.Generator().manual_seed(0)) * 50 + 1
    if gaps:
        made[0, 60:65, 1] = NAN
        made[1, 10, 2] = NAN
    return made


def data(**change: object) -> SeriesDataModule:
    options = {"window": 6, "horizon": 3, "val": 10, "test": 15, "eval_batch_size": 4, **change}
    return SeriesDataModule(values(), **options)  # type: ignore[arg-type]  # options by name


def errors(forecast: np.ndarray, target: np.ndarray, naive: np.ndarray) -> dict[str, float]:
    known = ~np.isnan(target)
    gap = np.abs(forecast - target)
    return {
        "mae": float(gap[known].mean()),
        "rmse": float(np.sqrt((gap[known] ** 2).mean())),
        "mase": float((gap / naive)[known].mean()),
        "smape": float((2 * gap / (np.abs(forecast) + np.abs(target)))[known].mean()),
        "msle": float(((np.log1p(np.maximum(forecast, 0)) - np.log1p(target))[known] ** 2).mean()),
        "mae@2": float(gap[:, :, 1][known[:, :, 1]].mean()),
        "mae[1]": float(gap[..., 1][known[..., 1]].mean()),
    }


@pytest.mark.parametrize("eval_batch_size", [1, 4, 100])
def test_metrics_are_those_of_original_units_and_independent_of_the_batch(tmp_path: Path, eval_batch_size: int) -> None:
    source = data(eval_batch_size=eval_batch_size)
    task = Forecasting(Last(3), metrics=["mae", "rmse", "mase", "smape", "msle"], steps=[2], variables=[1])
    found = trainer(tmp_path).test(task, source, verbose=False)[0]
    raw = values().numpy().astype(np.float64)
    starts = source.splits["test"].tolist()
    target = np.stack([raw[:, s + 6 : s + 9] for s in starts])
    scaled = source.state_dict()
    loc, scale = scaled["loc"].numpy()[:, None], scaled["scale"].numpy()[:, None]
    last = np.stack([np.nan_to_num((raw[:, s + 5 : s + 6] - loc) / scale) * scale + loc for s in starts])
    expected = errors(np.broadcast_to(last, target.shape), target, scaled["naive"].numpy()[:, None])
    for name, value in expected.items():
        assert found[f"test/{name}"] == pytest.approx(value, rel=1e-5), name


def test_evaluation_does_not_depend_on_what_ran_before(tmp_path: Path) -> None:
    def tested() -> dict[str, float]:
        torch.manual_seed(3)
        return dict(trainer(tmp_path).test(Forecasting(ReGENN(3, 6, 3, feedforward_size=4)), data(), verbose=False)[0])

    first = tested()
    torch.manual_seed(9)
    other = Forecasting(ReGENN(3, 6, 3, feedforward_size=4))
    trainer(tmp_path, max_epochs=1, enable_checkpointing=False).fit(other, data())
    assert tested() == first


def test_known_covariates_reach_the_network_and_other_variables_are_read_only(tmp_path: Path) -> None:
    """The target is the sum of a variable that is only read and of a covariate of the future."""
    made = torch.Generator().manual_seed(0)
    known = torch.randn(203, 1, generator=made)
    read = torch.randn(1, 200, 1, generator=made)
    target = torch.zeros(1, 200, 1)
    target[:, 3:] = read[:, :-3] + known[3:200]
    source = SeriesDataModule(torch.cat([target, read], 2), known=known, targets=[0], window=3, horizon=3, val=20,
                              test=40, batch_size=16)  # fmt: skip

    class Linear(Recorded, nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = nn.Linear(9, 3)

        def forward(self, x: Tensor, known: Tensor) -> Tensor:
            inputs = torch.cat([x.flatten(2), known[:, None, 3:].flatten(2)], 2)
            return self.read(inputs)[..., None]

    task = Forecasting(Linear(), optimizer=partial(torch.optim.Adam, lr=0.05))
    run = trainer(tmp_path, max_epochs=15, enable_checkpointing=False)
    run.fit(task, source)
    assert run.test(task, source, verbose=False)[0]["test/mae"] < 0.1
    ahead = torch.cat(run.predict(task, source))  # type: ignore[arg-type]  # one loader
    assert ahead.shape == (1, 1, 3, 1)
    torch.testing.assert_close(ahead[0, 0, :, 0], read[0, -3:, 0] + known[200:, 0], atol=0.3, rtol=0)


def test_loss_is_the_mean_over_known_targets_and_gradients_agree() -> None:
    batch = next(data().batches("test"))
    task = Forecasting(Last(3), loss=nn.MSELoss(reduction="none"))
    step = task.step(batch)
    known = ~batch.y.isnan()
    expected = (batch.x[:, :, -1:].expand_as(batch.y) - batch.y)[known].square().mean()
    torch.testing.assert_close(step.loss, expected)
    assert int(step.size) == int(known.sum())
    step.loss.backward()
    shift = task.model.get_parameter("shift")
    torch.testing.assert_close(shift.grad, 2 * (batch.x[:, :, -1:].expand_as(batch.y) - batch.y)[known].mean())


def test_a_batch_without_known_targets_has_loss_zero() -> None:
    batch = next(data().batches("test"))
    batch.y = torch.full_like(batch.y, NAN)
    task = Forecasting(Last(3))
    step = task.step(batch)
    step.loss.backward()
    assert float(step.loss) == 0
    assert task.model.get_parameter("shift").grad is not None


def test_quantiles(tmp_path: Path) -> None:
    class Three(Last):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[..., None] + torch.tensor([-1.0, 0.0, 1.0])

    batch = next(data().batches("test"))
    step = Forecasting(Three(3), quantiles=[0.1, 0.5, 0.9]).step(batch)
    assert step.prediction.shape[-1] == 3
    by_quantiles = trainer(tmp_path).test(Forecasting(Three(3), quantiles=[0.1, 0.5, 0.9]), data(), verbose=False)[0]
    by_point = trainer(tmp_path).test(Forecasting(Last(3)), data(), verbose=False)[0]
    assert by_quantiles["test/mae"] == pytest.approx(by_point["test/mae"])


def test_the_error_of_quantiles_is_that_of_the_level_nearest_to_a_half() -> None:
    class Several(Last):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[..., None] + torch.tensor([7.0, 5.0, 0.0])

    batch = next(data().batches("test"))
    found = []
    for task in (Forecasting(Several(3), quantiles=[0.05, 0.1, 0.5]), Forecasting(Last(3))):
        task.setup("test")
        task.log_dict = lambda *_, **__: None  # type: ignore[method-assign]  # there is no trainer
        task.record("test", batch, task.step(batch, "test"))
        metrics = task.metrics("test")
        assert metrics is not None
        found.append(float(metrics.compute()["test/mae"]))
    assert found[0] == pytest.approx(found[1])


def test_counts_of_zero_stay_zero_in_original_units() -> None:
    """Scaled and restored in float32 some would be below 0, where the logarithmic error is not defined."""
    for seed in range(12):
        counts = torch.poisson(torch.full((60, 1), 0.5 + seed / 4), generator=torch.Generator().manual_seed(seed))
        task = Forecasting(Last(3), metrics=["msle"])
        task.setup("test")
        task.log_dict = lambda *_, **__: None  # type: ignore[method-assign]  # there is no trainer
        for batch in SeriesDataModule(counts.double(), window=6, horizon=3).batches("test"):
            task.record("test", batch, task.step(batch, "test"))


def test_predictions_are_in_original_units(tmp_path: Path) -> None:
    source = data()
    found = torch.cat(trainer(tmp_path).predict(Forecasting(Last(3)), source))  # type: ignore[arg-type]  # one loader
    assert found.shape == (1, 2, 3, 3)
    torch.testing.assert_close(found[0, 1, 0], values()[1, -1], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("within", [False, True])
def test_the_graph_is_fitted_to_the_training_span_only(tmp_path: Path, *, within: bool) -> None:
    graphs = []
    for change in (0.0, 1e5):
        series = values(gaps=False) * (torch.rand(2, 70, 3, generator=torch.Generator().manual_seed(1)) > 0.3)
        series[:, 45:] += change
        torch.manual_seed(0)
        network = ReGENN(3, 6, 3, feedforward_size=4)
        task = Forecasting(NormalizedWindows(network) if within else network)
        source = SeriesDataModule(series, window=6, horizon=3, val=10, test=15)
        trainer(tmp_path, max_epochs=1, enable_checkpointing=False).fit(task, source)
        graphs.append(network.get_buffer("source.adjacency"))
    assert torch.equal(*graphs)
    assert not torch.equal(graphs[0], torch.ones(3, 3))


def test_resume_equals_the_uninterrupted_run(tmp_path: Path) -> None:
    def made() -> tuple[Forecasting, DriverPanelDataModule]:
        torch.manual_seed(0)
        return (
            Forecasting(ReGENN(4, 8, 4, feedforward_size=8)),
            DriverPanelDataModule(num_series=4, steps=80, batch_size=8),
        )

    whole, source = made()
    trainer(tmp_path / "whole", max_epochs=3).fit(whole, source)
    part, source = made()
    first = trainer(tmp_path / "part", max_epochs=2)
    first.fit(part, source)
    path = tmp_path / "middle.ckpt"
    first.save_checkpoint(path)
    _, source = made()
    torch.manual_seed(7)
    resumed = Forecasting(ReGENN(4, 8, 4, feedforward_size=8))
    trainer(tmp_path / "rest", max_epochs=3).fit(resumed, source, ckpt_path=path, weights_only=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    loaded = graphseq.load(path)
    assert torch.equal(loaded.model.get_buffer("source.adjacency"), whole.model.get_buffer("source.adjacency"))


def test_teacher_forcing_falls_to_zero(tmp_path: Path) -> None:
    task = Forecasting(Decoder(3), teacher_forcing=0.8, teacher_forcing_epochs=4)
    assert task.teacher_forcing_share() == 0.8
    batch = next(data().batches("train"))
    task.step(batch, "train")
    assert task.model.share == 0.8
    task.model.share = -1.0
    task.step(batch, "val")
    assert task.model.share == -1.0
    shares: list[float] = []
    seen = LambdaCallback(on_train_epoch_start=lambda *_: shares.append(task.teacher_forcing_share()))
    trainer(tmp_path, max_epochs=6, enable_checkpointing=False, callbacks=[seen]).fit(task, data())
    assert shares == pytest.approx([0.8, 0.6, 0.4, 0.2, 0, 0])


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_precision(tmp_path: Path, precision: str) -> None:
    task = Forecasting(ReGENN(3, 6, 3, feedforward_size=4))
    run = trainer(tmp_path, max_epochs=1, precision=precision, enable_checkpointing=False)
    run.fit(task, data())
    assert run.callback_metrics["val/mae"].isfinite()


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"loss": nn.MSELoss()}, ValueError, "reduction"),
        ({"loss": "mae"}, TypeError, "loss"),
        ({"loss": nn.L1Loss(reduction="none"), "quantiles": [0.5]}, ValueError, "quantiles"),
        ({"quantiles": [0.9, 0.1]}, ValueError, "levels"),
        ({"metrics": []}, ValueError, "metrics"),
        ({"metrics": ["r2"]}, ValueError, "r2"),
        ({"steps": [0]}, ValueError, "steps"),
        ({"variables": [-1]}, ValueError, "variables"),
        ({"teacher_forcing": 2.0}, ValueError, "teacher_forcing"),
        ({"teacher_forcing": 0.5}, TypeError, "forward_with_target"),
    ],
)
def test_bad_arguments(options: dict[str, object], error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        Forecasting(Last(3), **options)  # type: ignore[arg-type]  # wrong on purpose


def test_bad_batches(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="WindowBatch"):
        Forecasting(Last(3)).step(torch.zeros(2, 1, 6, 3))  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(DataError, match="predictions"):
        Forecasting(Last(4)).step(next(data().batches("test")))
    negative = SeriesDataModule(values(gaps=False) - 100, window=6, horizon=3, val=10, test=15)
    with pytest.raises(ValueError, match="at least 0"):
        trainer(tmp_path).test(Forecasting(Last(3), metrics=["msle"]), negative, verbose=False)
    with pytest.raises(DataError, match="training_span"):
        trainer(tmp_path, max_epochs=1).fit(Forecasting(ReGENN(3, 6, 3)), torch.utils.data.DataLoader([1]))


def test_table_of_predictions(tmp_path: Path) -> None:
    path = tmp_path / "shops.csv"
    days = np.arange("2024-01-01", "2024-03-11", dtype="datetime64[D]")
    rows = [f"{day},{shop},{n + 100 * (shop == 'b')},{n % 7}" for n, day in enumerate(days) for shop in "ab"]
    path.write_text("day,shop,sold,visitors\n" + "\n".join(rows))
    source = SeriesTableDataModule(
        path, time="day", series="shop", window=6, horizon=3, val=10, test=15, targets=["sold"]
    )
    task = Forecasting(Persistence(3, targets=source.target_positions))
    ahead = task.predictions(source, "predict")
    assert list(ahead.columns) == ["id", "split", "series", "step", "time", "prediction_sold"]
    assert ahead["series"].tolist() == ["a"] * 3 + ["b"] * 3
    assert ahead["time"].astype(str).tolist()[:3] == ["2024-03-11", "2024-03-12", "2024-03-13"]
    np.testing.assert_allclose(ahead["prediction_sold"], [69] * 3 + [169] * 3, rtol=1e-5)
    tested = task.predictions(source, "test")
    assert len(tested) == 13 * 2 * 3
    first = tested.iloc[0]
    assert str(first["time"])[:10] == "2024-02-25"
    assert first["target_sold"] == pytest.approx(55, rel=1e-5)
    assert first["prediction_sold"] == pytest.approx(54, rel=1e-5)
    # the last window of all has no known target; it is a batch by itself
    everything = task.predictions(source, "all", batch_size=1)
    assert list(everything.columns) == list(tested.columns)
    assert everything["target_sold"].isna().sum() == 2 * (1 + 2 + 3)


def test_table_of_quantiles() -> None:
    class Two(Last):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[..., None] + torch.tensor([-1.0, 1.0])

    found = Forecasting(Two(3), quantiles=[0.1, 0.9]).predictions(data())
    assert {"prediction_variable 0_0.1", "prediction_variable 0_0.9"} <= set(found.columns)
