"""The networks of forecasting experiments, as entries of a config."""

from graphseq.bench import new

__all__ = ["ABLATION", "NARROW", "UNTRAINED", "closed", "relative", "trained"]

NARROW: dict[str, object] = {"feedforward_size": 128}
"""Width of the feed-forward part: torch's default of 2048, which the authors' code has, takes ten times as long."""
ABLATION: dict[str, object] = {"source": new("torch.nn.Identity"), "target": new("torch.nn.Identity")}
"""ReGENN without graph evolution, as in the paper's ablation."""


def trained(network: str, /, *, rate: float = 1e-3, **arguments: object) -> dict[str, object]:
    """Return a task that trains a network by Adam; sizes come from the data."""
    return _task("Forecasting", network, arguments, optimizer=new("torch.optim.Adam", lr=rate))


def relative(wrapper: str, /, *, spread: bool, rate: float = 1e-3, **arguments: object) -> dict[str, object]:
    """Return a task that trains ReGENN within a network that reads windows relative to their own values."""
    inner = new("graphseq.models.ReGENN", **NARROW, **arguments)
    return trained(wrapper, rate=rate, network=inner, spread=spread)


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
