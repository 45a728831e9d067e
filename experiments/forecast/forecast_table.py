"""All forecasting networks and the baselines that need no training, on five sets, by rolling origin."""

import math

from experiments.forecast.models import TRAINED, UNTRAINED, closed, trained
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
its validation steps, with seed k for the weights. Scaling is fitted to the training steps. Adam at 1e-3, 10 epochs of
at most 100 batches of 32 windows, no tuning for any arm; ReGENN's feed-forward part is 128 wide; the epoch of the
least validation error is tested. The score is the mean absolute scaled error (relative to the naive forecast of the
training steps), as minus its logarithm: a difference of 0.1 is about a tenth. Intervals are over the five parts, so
they hold the spread of origin and seed.

Seen before this was written: one part of the influenza set at scale quick, to try the code.

There is no verdict: the table tells where each network stands against what is simple. Reported conditions, for each
set: (A) regenn, (B) relative, (C) nlinear, (D) patches less autoregression lie above 0.
"""

MODULE = "graphseq.data"
SETS = {
    "ETTh1": new(f"{MODULE}.ETTDataModule", window=96, horizon=24),
    "exchange": new(f"{MODULE}.ExchangeRateDataModule", window=96, horizon=24, season=7),
    "chickenpox": new(f"{MODULE}.ChickenpoxDataModule", window=52, horizon=4),
    "flu": new(f"{MODULE}.USFluDataModule", window=52, horizon=5),
    "COVID": new(f"{MODULE}.COVIDDataModule", days=220, window=14, horizon=14, val=14, test=70, season=7),
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
    base={"trainer.max_epochs": 10, "trainer.limit_train_batches": 100, "trainer.gradient_clip_val": 10.0},
    arms={
        **UNTRAINED,
        "seasonal naive": closed("SeasonalNaive"),
        "smoothing": trained("ExponentialSmoothing"),
        "nlinear": trained("NLinear"),
        "dlinear": trained("DLinear", kernel_size=7),
        "lstm": trained("RecurrentForecaster"),
        "tcn": trained("ConvolutionalForecaster"),
        "patches": trained("PatchTransformer", patch=8, stride=4, dim=32),
        "graph": trained("GraphRecurrentForecaster"),
        **TRAINED,
    },
    grid={
        "data": {
            name: {
                "data": {
                    **module,
                    "init_args": {**module["init_args"], "num_folds": 5, "batch_size": 32, "eval_batch_size": 256},
                },
            }
            for name, module in SETS.items()
        }
    },
    scales={"quick": {"trainer.max_epochs": 1, "trainer.limit_train_batches": 3}},
    seeds=Seeds(first=0, default=5, into=("data.fold",)),
    where=runs,
    score=lambda row: -math.log(row["test"][""]["mase"]),
    choose="val/mase",
    claims=[
        Above(letter, f"{arm}@{name} - autoregression@{name}")
        for letter, arm in (("A", "regenn"), ("B", "relative"), ("C", "nlinear"), ("D", "patches"))
        for name in SETS
    ],
    unit="minus log of the scaled error",
)
