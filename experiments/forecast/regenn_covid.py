"""ReGENN on cumulative COVID-19 cases by country, two weeks ahead, against drift and linear models."""

import math
import statistics

from experiments.forecast.models import ABLATION, NARROW, UNTRAINED, relative, trained
from graphseq.bench import Above, Effect, Quantity, Results, Row, Rule, Scale, Seeds, all_of, any_of

PROTOCOL = """\
Confirmed, deaths and recovered cases of the countries that all three files of Johns Hopkins University have, from
2020-01-22 on; a window of 7 days and a horizon of 14, as in the paper's code. The paper's files are others (two of
their three variables are identical), and its tables could not be read: only the claim, an improvement of up to 64.87
% over its competitors. Its code scales predictions by the future step itself; that is impossible here, and explains
much without any model: the frozen ratio of the last day, times that scale, has 63 % less error than drift on its
files.

Arms: *persistence*; *drift*, a straight line through the window; *autoregression* and *vector autoregression*, linear
in the past of a variable and of all three, by least squares over the training span; *ablation*, ReGENN without graph
evolution; *regenn*. What it takes to win is sought among our changes, none of which the paper has and none of which
reads anything outside a window: *differences*, ReGENN that reads the changes from day to day and adds up those that it
predicts; *scaled*, the same with changes divided by their mean size in the window, so that a country of any size and a
trend beyond the training span look alike; *scaled ablation*, the control without graph evolution, which tells whether
a gain has to do with the graph; *longer* and *scaled longer*, three times as many epochs.

Protocol: two ends of the series, 120 and 180 days; the last 14 days are predicted once, the 14 before
them validate, all before is training. Each variable of each country is divided by its largest training value. The
attention's feed-forward part is 128 wide, where the authors' code has torch's default of 2048, for time. Adam at
3e-3, 40 epochs of 9 batches of 8 windows of all countries, drawn without replacement; the longer arms are run at 120
days only, about where the paper's series end. The epoch of the least validation error is tested. Five seeds
from 310 on, of the weights; arms without weights give the same number for each. The score is the mean absolute error
over countries, days and variables in cases, as minus its logarithm: a difference of 0.1 is about a tenth.

Seen before this rule was written: one seed at scale quick, to try the code; and of an interrupted run of a
version with Adam at 1e-3, 60 epochs of batches of 4, without the arms that read changes, two of five seeds (310, 311):
validation errors of all arms, and test errors of the arms without training. The seeds are kept, the steps differ. With
the steps of this protocol, one seed (300) and validation errors only: scaled 513 at 120 and 938 at 180 days, windows
relative to their last value and deviation 522 and 1025, differences 653 at 120; drift has 532 and 979.

Conditions, at every end: (A) regenn less ablation, (B) regenn less autoregression, (C) regenn less drift lie above 0.
(D) At one end at least the error of regenn is 64.87 % below that of the best arm without graph evolution. Reported, and
not part of the rule: (E) differences less drift, (F) scaled less drift, (G) scaled less scaled ablation, at every end;
(H) longer less drift and (I) scaled longer less drift, at 120 days; all lie above 0.

Rule: *reproduced* if (B), (C) and (D) hold; *partly* if (B) or (C) does; else *not reproduced*.
"""

ENDS = (120, 180)
RIVALS = ("persistence", "drift", "autoregression", "vector autoregression", "ablation")


def runs(cell: Row, scale: Scale) -> bool:
    """Return whether an arm is run at an end of the series."""
    return cell["data.days"] == 120 or (scale != "quick" and "longer" not in cell["arm"])


def largest_gain(results: Results) -> float | None:
    """Return the largest difference, over the ends, of regenn to the best arm without graph evolution."""
    gains = []
    for end in ENDS:
        scores = {arm: list(results.values(f"{arm}@{end}").values()) for arm in ("regenn", *RIVALS)}
        if not all(scores.values()):
            return None
        means = {arm: statistics.fmean(values) for arm, values in scores.items()}
        gains.append(means["regenn"] - max(means[arm] for arm in RIVALS))
    return max(gains)


RATE = 3e-3
LONGER = {"trainer.max_epochs": 120}
SCALED = relative("DifferencedWindows", spread=True, rate=RATE)
REGENN = trained("ReGENN", rate=RATE, **NARROW)

effect = Effect(
    name="effect.regenn_covid",
    source="arXiv 2008.12833",
    protocol=PROTOCOL,
    config="configs/forecast/regenn_covid.yaml",
    base={"data.batch_size": 8, "trainer.max_epochs": 40, "trainer.limit_train_batches": 9},
    arms={
        **UNTRAINED,
        "ablation": trained("ReGENN", rate=RATE, **NARROW, **ABLATION),
        "regenn": REGENN,
        "differences": relative("DifferencedWindows", spread=False, rate=RATE),
        "scaled": SCALED,
        "scaled ablation": relative("DifferencedWindows", spread=True, rate=RATE, **ABLATION),
        "longer": {**REGENN, **LONGER},
        "scaled longer": {**SCALED, **LONGER},
    },
    grid={"data.days": list(ENDS)},
    scales={"quick": {"trainer.max_epochs": 1}},
    seeds=Seeds(first=310, default=5),
    where=runs,
    score=lambda row: -math.log(row["test"][""]["mae"]),
    choose="val/mae",
    claims=[
        *(Above(letter, f"{ours}@{end} - {rival}@{end}") for letter, ours, rival in (
            ("A", "regenn", "ablation"), ("B", "regenn", "autoregression"), ("C", "regenn", "drift"),
            ("E", "differences", "drift"), ("F", "scaled", "drift"), ("G", "scaled", "scaled ablation"))
          for end in ENDS),
        Above("H", "longer@120 - drift@120"),
        Above("I", "scaled longer@120 - drift@120"),
        Quantity("D", "largest gain over the best arm without graph evolution", largest_gain, -math.log(1 - 0.6487),
                 places=[f"{arm}@{end}" for arm in ("regenn", *RIVALS) for end in ENDS]),
    ],
    verdict=Rule(reproduced=all_of("BCD"), partly=any_of("BC")),
    unit="minus log of the mean absolute error",
)  # fmt: skip
