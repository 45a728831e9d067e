"""A complex network that finds occupied bins of spectra against real twins, an energy detector and an empty mask."""

import statistics
from typing import Any

import torch

from graphseq.bench import Above, Effect, MeanAbove, Quantity, Results, Row, Rule, Scale, Seeds, all_of, any_of, new
from graphseq.bench.records.drawing import COLOURS, plain_axes, set_finding

EPOCHS = 12
LOW, HIGH = (-10, -8, -6, -4), (4, 6, 8, 10)
WINDOWS = (1, 3, 5, 7, 9, 13)

PROTOCOL = f"""\
Data: generated recordings of 256 samples at 10 MHz with 1 to 4 emitters that do not overlap, bandwidths of 0.2, 0.5, 1
and 2 MHz, seven modulations, powers over 20 dB, white noise; the power of the weakest emitter lies -10 to 10 dB, in
steps of 2, over that of the noise of the whole band. The input is the spectrum, divided by its largest modulus; the
target is the mask of the bins that an emitter occupies, a quarter of them. 3,000 recordings train, 500 validate and
1,000 test, each with all eleven ratios in turn, all drawn independently. Published: 16,384 bins, 5,000 recordings for
each ratio from -20 dB on, up to ten emitters.

Arms: *parts*, the real network on real and imaginary part as two channels; *magnitude*, the real network on the
modulus; *complex*, CMuSeNet; *energy detector*, the moving mean of the power over an estimate of the noise against a
threshold, both chosen on the training recordings by the score itself, of windows {", ".join(map(str, WINDOWS))} and 121
thresholds; *empty mask*, which finds nothing. The networks have four stages of one block, convolutions along the
spectrum, and leave 8 positions in the mean before the head. Widths: 8, 16, 32, 64 complex, 319,096 real parameters; 15,
29, 57, 113 real, 319,217 and 319,112. At equal parameters the complex network needs more multiplications. All three
have the focal loss with exponent 2 and factor 1, of both parts in the complex network, which says yes if either part
does.

Score: intersection over union of the masks, mean over recordings, in points. Accuracy is reported beside it: it is high
for an empty mask.

Protocol: Adam at 0.003, batches of 64, {EPOCHS} epochs (564 steps); the epoch of the best validation score is tested
once. The arms of a seed share recordings and order of batches. Five seeds from 4300 on, which nothing was run with; the
quick scale tried the code with seed 4200. Intervals are 95 %, paired by seed.

Seen before this rule was written: the specification, which expects the complex network to reach the final score of the
real one in fewer epochs, with the largest gap at low ratios; with seed 50, 2,000 recordings, 4 epochs and real widths
of 12, 23, 45, 91: magnitude 61.4, complex 61.8 points, energy detector 67.9, and magnitude with one position in the
mean, as published, 2.0, for which reason there are 8; with seed 0, 1,500 recordings and 5 epochs, complex 60.0 points
in validation, energy detector 66.7. *Parts* had not been trained.

Conditions: (A) complex less parts lies above 0; (B) complex less magnitude lies above 0; (C) complex less energy
detector lies above 0; (D) the epoch at which complex has reached the last validation score of parts, {EPOCHS + 1} if it
never does, is at most {EPOCHS // 2} in the mean (published: 2 of 27 epochs); (E) complex less parts is larger at -10 to
-4 dB than at 4 to 10 dB; (F) the accuracy of the empty mask is at least 70 points; (G) magnitude less parts lies above
0: whether phases of the spectrum serve.

Rule: *reproduced* if (A) to (D) hold; *partly* if (A) or (B) does; else *not reproduced*. (E) to (G) are reported.
"""

_REAL = {"channels": [15, 29, 57, 113], "num_blocks": [1, 1, 1, 1], "layout": "1d", "num_positions": 8}


def real(reading: str) -> dict[str, object]:
    """Return the overrides of the real network that reads the spectrum in one way."""
    return {
        "model.model": new("graphseq.models.RealMuSeNet", reading=reading, **_REAL),
        "model.loss": new("graphseq.nn.FocalLoss"),
    }


def score(row: Row) -> float:
    """Return the intersection over union in points."""
    return 100 * row["test"][""]["iou"]


def accuracy(row: Row) -> float:
    """Return the accuracy in points."""
    return 100 * row["test"][""]["acc"]


def at(row: Row, ratios: tuple[int, ...]) -> float:
    """Return the mean score at some ratios of signal to noise, in points."""
    return 100 * statistics.fmean(row["iou_by_snr"][str(ratio)] for ratio in ratios)


def low_over_high(row: Row) -> float:
    """Return the score at low ratios less that at high ones."""
    return at(row, LOW) - at(row, HIGH)


def by_snr(logits: torch.Tensor, mask: torch.Tensor, snr: torch.Tensor) -> Row:
    """Return the intersection over union and the accuracy at each ratio."""
    from graphseq.metrics import complex_iou, mask_accuracy

    found: Row = {}
    for name, each in (("iou_by_snr", complex_iou(logits, mask)), ("acc_by_snr", mask_accuracy(logits, mask))):
        found[name] = {f"{ratio:g}": float(each[snr == ratio].mean()) for ratio in snr.unique().tolist()}
    return found


@torch.no_grad()
def measure(task, data) -> Row:
    """Return the scores of a trained network at each ratio, and its number of real parameters."""
    from graphseq.models import num_real_parameters

    task.eval()
    batches = [data.store.take(part) for part in data.splits["test"].split(250)]
    logits = torch.cat([task(batch) for batch in batches])
    mask, snr = (torch.cat([batch[name] for batch in batches]) for name in ("y", "snr"))
    return {"parameters": num_real_parameters(task.model), **by_snr(logits, mask, snr)}


def run(cell: Row, scale: Scale, effect: Effect) -> Row | None:
    """Return the row of an arm that is not trained; None for the networks."""
    from graphseq.bench.effects.training import build, quiet
    from graphseq.metrics import complex_iou, mask_accuracy
    from graphseq.models import EnergyDetector
    from graphseq.ops import best_threshold

    if cell["arm"] not in ("energy detector", "empty mask"):
        return None
    with quiet():
        _, data, _ = build(effect.config_of(cell, scale))
    train, val, test = (data.store.take(data.splits[name]) for name in ("train", "val", "test"))
    row: Row = {}
    if cell["arm"] == "energy detector":
        tried = {}
        for window in WINDOWS:
            scores = EnergyDetector(window, threshold=0.0)(train["x"])
            tried[window] = best_threshold(scores, train["y"] > 0, [0.05 * step for step in range(121)])
        window = max(tried, key=lambda one: tried[one][1])
        row = {"window": window, "threshold": 10 * tried[window][0] / 2.302585092994046}
        detector = EnergyDetector(window, row["threshold"])
        logits = {"val": detector(val["x"]), "test": detector(test["x"])}
    else:
        logits = {"val": -torch.ones_like(val["y"]), "test": -torch.ones_like(test["y"])}
    means = {
        "iou": float(complex_iou(logits["test"], test["y"]).mean()),
        "acc": float(mask_accuracy(logits["test"], test["y"]).mean()),
    }
    best = float(complex_iou(logits["val"], val["y"]).mean())
    return {"val": best, "curve": [best], "test": {"": means}, **row, **by_snr(logits["test"], test["y"], test["snr"])}


def epochs_to_reach(results: Results) -> float | None:
    """Return the mean epoch, from 1, at which complex has the last validation score of parts."""
    ours, theirs = results.select("complex"), results.select("parts")
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    reached = []
    for seed in seeds:
        curve, goal = ours[seed]["curve"], theirs[seed]["curve"][-1]
        reached.append(next((epoch + 1 for epoch, value in enumerate(curve) if value >= goal), EPOCHS + 1))
    return statistics.fmean(reached)


def draw(results: Results, figure: Any, finding: str, reruns: Any) -> None:
    """Draw intersection over union over the ratio of signal to noise: every seed of the detectors, and the mean."""
    figure.set_size_inches(6.5, 4.0)
    axes = figure.subplots()
    for arm, colour in zip(("parts", "magnitude", "complex", "energy detector"), COLOURS, strict=False):
        rows = [row["iou_by_snr"] for row in results.select(arm).values()]
        if not rows:
            continue
        ratios = sorted(rows[0], key=float)
        curves = [[100 * row[ratio] for ratio in ratios] for row in rows]
        places = [float(ratio) for ratio in ratios]
        for curve in curves:
            axes.plot(places, curve, ".", color=colour, markersize=4, alpha=0.35)
        axes.plot(places, [statistics.fmean(column) for column in zip(*curves, strict=True)], color=colour, label=arm)
    axes.set_xlabel("power of the weakest emitter over that of the noise of the band, dB", fontsize=9)
    axes.set_ylabel("intersection over union, points, higher is better", fontsize=9)
    axes.legend(frameon=False, fontsize=9, loc="lower right", title="lines: means; dots: seeds", title_fontsize=8)
    plain_axes(axes, "y")
    set_finding(figure, finding)


effect = Effect(
    name="effect.cmusenet",
    source="arXiv 2506.11048",
    protocol=PROTOCOL,
    config="configs/signals/cmusenet_synthetic.yaml",
    base={"trainer.max_epochs": EPOCHS, "trainer.callbacks": None, "data.num_val": 500, "data.num_test": 1000},
    arms={
        "parts": real("parts"),
        "magnitude": real("magnitude"),
        "complex": {},
        "energy detector": {"model.decision": "real"},  # not read: these two are not trained
        "empty mask": {"model.decision": "and"},
    },
    scales={"quick": {"trainer.max_epochs": 1, "data.num_train": 132, "data.num_val": 44, "data.num_test": 44}},
    seeds=Seeds(first=4300, default=5, into=("data.seed",)),
    score={"IoU": score, "accuracy": accuracy},
    choose="val/iou",
    run=run,
    measure=measure,
    columns={
        **{f"IoU at {low:g} to {high:g} dB": lambda row, ratios=ratios: at(row, ratios)
           for low, high, ratios in ((-10, -4, LOW), (-2, 2, (-2, 0, 2)), (4, 10, HIGH))},
    },
    claims=[
        Above("A", "complex - parts"),
        Above("B", "complex - magnitude"),
        Above("C", "complex - energy detector"),
        Quantity("D", "mean epoch at which complex has the last validation score of parts", epochs_to_reach,
                 EPOCHS // 2, most=True, places=["complex", "parts"]),
        Above("E", "complex - parts", text="complex less parts, at low ratios less at high ones", score=low_over_high),
        MeanAbove("F", "empty mask", 70, text="accuracy of the empty mask", score=accuracy),
        Above("G", "magnitude - parts"),
    ],
    verdict=Rule(reproduced=all_of("ABCD"), partly=any_of("AB")),
    unit="points of intersection over union",
    figure=draw,
)  # fmt: skip
