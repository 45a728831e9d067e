"""The networks of forecasting experiments, as entries of a config."""

from graphseq.bench import new

__all__ = ["TRAINED", "UNTRAINED", "closed", "trained"]


def trained(network: str, /, **arguments: object) -> dict[str, object]:
    """Return a task that trains a network by Adam at 1e-3; sizes come from the data."""
    return _task("Forecasting", network, arguments, optimizer=new("torch.optim.Adam", lr=1e-3))


def closed(network: str, /, **arguments: object) -> dict[str, object]:
    """Return a task that evaluates a forecast computed in closed form, or without training."""
    return {**_task("ClosedFormForecasting", network, arguments), "trainer.max_epochs": 1}


def _task(task: str, network: str, arguments: dict[str, object], **more: object) -> dict[str, object]:
    made = new(f"graphseq.models.{network}", **arguments)
    return {"model": new(f"graphseq.tasks.{task}", model=made, metrics=["mae", "rmse", "mase"], **more)}


UNTRAINED = {
    "persistence": closed("Persistence"),
    "drift": closed("Drift"),
    "autoregression": closed("LeastSquaresForecaster", inputs="own"),
    "vector autoregression": closed("LeastSquaresForecaster", inputs="all"),
}
"""Forecasts that every table needs."""

IDENTITY = new("torch.nn.Identity")
NARROW = {"feedforward_size": 128}
"""Width of the feed-forward part: torch's default of 2048, which the authors' code has, takes ten times as long."""

TRAINED = {
    "ablation": trained("ReGENN", **NARROW, source=IDENTITY, target=IDENTITY),
    "regenn": trained("ReGENN", **NARROW),
    "relative": trained("NormalizedWindows", network=new("graphseq.models.ReGENN", **NARROW)),
}
"""ReGENN; without graph evolution, as in the paper's ablation; and reading windows relative to their last value."""
