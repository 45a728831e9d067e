"""All forecasting networks and the baselines that need no training, on five sets, by rolling origin."""

import math

from experiments.forecast.models import ABLATION, NARROW, UNTRAINED, closed, relative, trained
from graphseq.bench import Above, Effect, Row, Scale, Seeds, new

PROTOCOL = """\
Sets: hourly transformer loads (ETTh1, 96 hours to read, 24 to predict), daily exchange rates (96 and 24), weekly
chickenpox by county (52 and 4; published values are standardised over all weeks, test weeks included), weekly
influenza by state (52 and 5), and daily COVID-19 cases by country (14 and 14, 220 days).

Arms: *persistence*, *seasonal naive*, *drift*; *autoregression* and *vector autoregression* by least squares;
*smoothing*, damped Holt with learned rates; *nlinear*, *dlinear*; *lstm* (encoder and decoder), *tcn*, *patches*
(PatchTST); *graph*, a recurrence on the given graph, where there is one; *regenn*, its *ablation* without graph
evolution, and *relative*, ReGENN that reads each window relative to its last value, which is not the paper's form.

Protocol: the test steps are cut into five parts; part k is predicted by networks trained on all steps before it and
its validation steps, with seed k for the weights. Scaling is fitted to the training steps. Adam at 1e-3, no tuning for
any arm: 8 epochs of 100 batches of 32 windows on the first two sets, 12 epochs of all windows on the others, in
batches of 8, 4 and 2 windows of all counties, states or countries, which are about 50 steps an epoch. ReGENN's
feed-forward part is 128 wide; patches do not overlap; the epoch of the least validation error is tested. The score is
the mean absolute scaled error (relative to the naive forecast of the training steps), as minus its logarithm: a
difference of 0.1 is about a tenth. Intervals are over the five parts, so they hold the spread of origin and seed.

Seen before this was written: one part of the influenza set at scale quick, to try the code.

There is no verdict: the table tells where each network stands against what is simple. Reported conditions, for each
set: (A) regenn, (B) relative, (C) nlinear, (D) patches less autoregression lie above 0.
"""


def over(name: str, batch_size: int, epochs: int, **options: object) -> dict[str, object]:
    """Return the overrides for a set: its data module in five folds, and the length of the training."""
    module = new(f"graphseq.data.{name}DataModule", **options, num_folds=5, batch_size=batch_size, eval_batch_size=256)
    return {"data": module, "trainer.max_epochs": epochs}


SETS = {
    "ETTh1": over("ETT", 32, 8, window=96, horizon=24),
    "exchange": over("ExchangeRate", 32, 8, window=96, horizon=24, season=7),
    "chickenpox": over("Chickenpox", 8, 12, window=52, horizon=4),
    "flu": over("USFlu", 4, 12, window=52, horizon=5),
    "COVID": over("COVID", 2, 12, days=220, window=14, horizon=14, val=14, test=70, season=7),
}


def runs(cell: Row, scale: Scale) -> bool:
    """Return whether an arm exists on a set."""
    name, arm = cell["data"], cell["arm"]
    if scale == "quick" and name != "flu":
        return False
    return arm != "graph" or name in ("chickenpox", "flu")


effect = Effect(
    name="effect.forecast_table",
    source="arXiv 2008.12833, 2205.13504, 2211.14730, 1811.05320",
    protocol=PROTOCOL,
    config="configs/forecast/nlinear_etth1.yaml",
    base={"trainer.limit_train_batches": 100, "trainer.gradient_clip_val": 10.0},
    arms={
        **UNTRAINED,
        "seasonal naive": closed("SeasonalNaive"),
        "smoothing": trained("ExponentialSmoothing"),
        "nlinear": trained("NLinear"),
        "dlinear": trained("DLinear", kernel_size=7),
        "lstm": trained("RecurrentForecaster"),
        "tcn": trained("ConvolutionalForecaster"),
        "patches": trained("PatchTransformer", patch=8, stride=8, dim=32),
        "graph": trained("GraphRecurrentForecaster"),
        "ablation": trained("ReGENN", **NARROW, **ABLATION),
        "regenn": trained("ReGENN", **NARROW),
        "relative": relative("NormalizedWindows", spread=False),
    },
    grid={"data": SETS},
    scales={"quick": {"trainer.max_epochs": 1, "trainer.limit_train_batches": 3}},
    seeds=Seeds(first=0, default=5, into=("data.fold",)),
    where=runs,
    score=lambda row: -math.log(row["test"][""]["mase"]),
    choose="val/mase",
    mode="min",
    claims=[
        Above(letter, f"{arm}@{name} - autoregression@{name}")
        for letter, arm in (("A", "regenn"), ("B", "relative"), ("C", "nlinear"), ("D", "patches"))
        for name in SETS
    ],
    unit="minus log of the scaled error",
)
