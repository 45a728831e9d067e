"""Projection heads where views hide a subject: probes of digits and photos before and after the head."""

from collections.abc import Callable, Sequence
from typing import Any

from graphseq.bench import Above, Effect, Results, Row, Rule, Scale, Seeds, all_of, new
from graphseq.bench.effects.training import build, quiet
from graphseq.bench.records.drawing import Panel, draw_panels
from graphseq.callbacks import LinearProbe
from graphseq.data import DigitsOnPhotosDataModule
from graphseq.metrics import linear_probe

PROTOCOL = """\
Question: do features that the augmentation makes useless stay before a projection head and vanish behind it? Images
are photos of CIFAR-10 (JPEG) with a digit of MNIST in a channel of its own; SimCLR is trained on views of which each
loses the digit with probability 0, 0.5 or 0.9, so that the digit tells less and less of which views belong together.

Arms: those three probabilities. Network: convolutions of 16, 32 and 64 channels, the mean over positions, and an MLP
head of two maps of 64. Views are shifted by up to 4 pixels and have normal noise of 0.2 added, after the scaling to
[0, 1]. NT-Xent at a temperature of 0.5, Adam at 0.001 with a weight decay of 1e-6, batches of 256, 5,000 training
images, 20 epochs; the last epoch is tested. Probes are logistic regressions on standardised features of whole images
(photo and digit), fitted to the 5,000 training images and scored on 2,000 test images: *digit* and *photo*, each
*before* the head and *after* it; the gap is the accuracy before less that after, in points. Nothing is selected. The
arms of a seed share images, initial weights and order of batches. Five seeds from 1100 on; intervals are 95 %, paired.

Seen before this rule was written: nothing but the quick scale, one epoch with seed 1050, to try the code.

Conditions. (A) The gap on digits at 0.9 less that at 0 lies above 0; (B) that at 0.5 less that at 0 does; (C) the gap
on photos at 0 less that at 0.9 lies above 0: once the views share the photo alone, the head keeps it. Reported: (D) at
0.9 the gap on digits lies above that on photos.

Rule: *reproduced* if (A), (B) and (C) hold; *partly* if (A) does; else *not reproduced*.
"""


def views(p: float) -> dict[str, object]:
    """Return the overrides of an arm: two views that lose the digit with probability p."""
    steps = [
        new("graphseq.data.ChannelDrop", p=p),
        new("graphseq.data.RandomCrop", padding=4),
        new("graphseq.data.ToFloat"),
        new("graphseq.data.GaussianNoise", std=0.2),
    ]
    return {"model.views": [new("graphseq.data.Compose", transforms=steps)] * 2}


def run(cell: Row, scale: Scale, effect: Effect) -> Row:
    """Train on views, and probe both subjects before and after the head."""
    config = effect.config_of(cell, scale)
    with quiet():
        task, data, trainer = build(config, [], enable_checkpointing=False)
        trainer.fit(task, data)
        if not isinstance(data, DigitsOnPhotosDataModule):
            raise TypeError(f"the config has a {type(data).__name__}; DigitsOnPhotosDataModule knows both subjects")
        probe = LinearProbe(num_train=5000)
        train, test = (probe.features(task, data, split) for split in ("train", "test"))
    row: Row = {}
    for subject in ("digit", "photo"):
        labels = data.labels_of(subject)
        known, asked = labels[data.splits["train"]], labels[data.splits["test"]]
        for place in ("before", "after"):
            row[f"{subject} {place}"] = 100 * linear_probe(train[place], known, test[place], asked)
    return row


def gap(subject: str) -> Callable[[Row], float]:
    """Return the function that reads what the head loses of a subject."""
    return lambda row: row[f"{subject} before"] - row[f"{subject} after"]


DIGIT, PHOTO = gap("digit"), gap("photo")


def difference(row: Row) -> float:
    """Return how much more the head loses of digits than of photos."""
    return DIGIT(row) - PHOTO(row)


def finding(results: Results, checks: Sequence[Row]) -> str:
    """Return what the head loses of digits with and without hiding them."""
    lost = [results.mean(arm, DIGIT) for arm in ("0", "0.9")]
    if any(value is None for value in lost):
        return "not all arms have run"
    return f"the head loses {lost[0]:.1f} points of the digits that all views show, {lost[1]:.1f} of those they hide"


def figure(results: Results, drawn: Any, text: str, reruns: Sequence[Results] = ()) -> None:
    """Draw the probes of each subject, before and after the head, at each probability."""
    panels = []
    for subject in ("digit", "photo"):
        values = {
            f"p = {arm}, {place}": list(results.values(arm, f"{subject} {place}").values())
            for arm in results.arms()
            for place in ("before", "after")
        }
        panels.append(Panel(f"probe of the {subject}", {name: found for name, found in values.items() if found}))
    ours = [name for name in panels[0].values if name.endswith("before")]
    draw_panels(drawn, panels, finding=text, label="accuracy in percent, by probability that a view hides the digit",
                ours=ours)  # fmt: skip


effect = Effect(
    name="effect.projection_head_views",
    source="arXiv 2403.11391",
    protocol=PROTOCOL,
    config="configs/vision/projection_head_contrast_digits.yaml",
    base={
        "data": new("graphseq.data.DigitsOnPhotosDataModule", batch_size=256, drop_last=True, num_train=5000,
                    num_test=2000, eval_transform=new("graphseq.data.ToFloat")),
        "model.model.network": new("graphseq.models.ConvNet", hidden_channels=16, num_layers=3),
        "trainer.callbacks": None,
        "trainer.max_epochs": 20,
        "trainer.limit_val_batches": 0,
    },
    arms={"0": views(0.0), "0.5": views(0.5), "0.9": views(0.9)},
    scales={"quick": {"trainer.max_epochs": 1, "trainer.limit_train_batches": 2, "data.num_train": 600,
                      "data.num_test": 200}},
    seeds=Seeds(first=1100, default=5, into=("data.seed",)),
    run=run,
    score=DIGIT,
    columns={
        "digit before": "digit before",
        "digit after": "digit after",
        "photo before": "photo before",
        "photo after": "photo after",
    },
    claims=[
        Above("A", "0.9 - 0", text="gap on digits, 0.9 - 0"),
        Above("B", "0.5 - 0", text="gap on digits, 0.5 - 0"),
        Above("C", "0 - 0.9", text="gap on photos, 0 - 0.9", score=PHOTO),
        Above("D", "0.9", text="gap on digits less that on photos at 0.9", score=difference),
    ],
    verdict=Rule(reproduced=all_of("ABC"), partly=all_of("A")),
    unit="points of accuracy",
    finding=finding,
    figure=figure,
)  # fmt: skip
