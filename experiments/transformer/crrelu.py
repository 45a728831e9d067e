"""ReLU with a learned correction in image and text networks, against ReLU, GELU and a learned linear term."""

from typing import Any

from experiments.transformer.feed_forward import BASE, SCALES, activated
from graphseq.bench import Above, Effect, Results, Row, Rule, Seeds, all_of, any_of, new, over
from graphseq.bench.effects.figures import differences
from graphseq.bench.records.drawing import Panel, draw_panels

PROTOCOL = """\
Tasks: *images*, Fashion-MNIST by a multilayer perceptron of three hidden layers of 512 units with batch norm and
dropout 0.2, 5 epochs in batches of 128; the accuracy of the epoch with the best validation accuracy. *text*, the next
character of Tiny Shakespeare by a transformer of four blocks of width 64, 400 steps of 16 windows of 64 characters; the
loss in bits per character. Adam; each arm is trained with two learning rates from each seed (0.0003 and 0.001 on
images, 0.001 and 0.003 on text), and validation chooses, for all arms alike. The paper trains vision transformers and
GPT-2.

Arms: *ReLU*; *CRReLU*, with one learned epsilon a layer that begins at 0.01; *GELU*; *learned leak*, ReLU with a
learned slope below zero that begins at 0.01 (PReLU with one parameter): the control that tells the shape of the
correction from having a parameter and a gradient below zero at all. Scores: accuracy in percent, and 100 less 100 bits
per character.

Seen before this rule was written: the quick scale, 3 steps of each arm from another seed, to try the code and to time
it.

Conditions, paired by seed: CRReLU less ReLU lies above 0 on (A) images, (B) text; CRReLU less GELU lies above 0 on (C)
images, (D) text; CRReLU less learned leak lies above 0 on (E) images, (F) text.

Rule: *reproduced* if (A) to (D) hold; *partly* if (A) or (B) does; else *not reproduced*. (E) and (F) are reported.
"""

ACTIVATIONS = {
    "ReLU": ("torch.nn.ReLU", {}),
    "CRReLU": ("graphseq.nn.CRReLU", {}),
    "GELU": ("torch.nn.GELU", {}),
    "learned leak": ("torch.nn.PReLU", {"init": 0.01}),
}


TASKS = ("images", "text")


def arm(name: str, task: str) -> list[dict[str, object]]:
    """Return the overrides of an activation in one task, for both learning rates."""
    class_path, options = ACTIVATIONS[name]
    if task == "images":
        activation = {"model.model.activation": new(class_path, **options)}
        return over(activation, "model.optimizer.lr", [0.0003, 0.001])
    return [{**BASE, **overrides} for overrides in activated(class_path, **options)]


def score(row: Row) -> float:
    """Return the accuracy in percent, or 100 less 100 bits per character."""
    found = row["test"][""]
    return 100 * found["acc"] if "acc" in found else 100 - 100 * found["bpc"]


def claims(letters: str, other: str) -> list[Above]:
    """Return the claims that CRReLU lies above another arm, one for each task."""
    return [
        Above(letter, f"CRReLU on {task}@{task} - {other} on {task}@{task}")
        for letter, task in zip(letters, TASKS, strict=True)
    ]


def figure(results: Results, drawn: Any, finding: str, reruns: Any) -> None:
    """Draw the differences to ReLU of each seed, a panel for each task."""
    panels = []
    for task in TASKS:
        words = {f"{name} on {task}": name for name in ACTIVATIONS}
        panels.append(Panel(task, differences(results, f"ReLU on {task}", words, task=task), line=0.0, scale=task))
    label = "difference to ReLU, points of accuracy and hundredths of a bit per character"
    draw_panels(drawn, panels, finding=finding, label=label, better="higher", ours=["CRReLU"])


effect = Effect(
    name="effect.crrelu",
    source="arXiv 2405.12954",
    protocol=PROTOCOL,
    config="configs/language/polynorm_chars.yaml",
    arms={f"{name} on {task}": arm(name, task) for task in TASKS for name in ACTIVATIONS},
    grid={
        "task": {
            "images": {
                "config": "configs/vision/mlp_mnist.yaml",
                "choose": "val/acc",
                "data.name": "FashionMNIST",
                "trainer.max_epochs": 5,
                "arms": [f"{name} on images" for name in ACTIVATIONS],
            },
            "text": {"choose": "val/bpc", "arms": [f"{name} on text" for name in ACTIVATIONS]},
        }
    },
    scales=SCALES,
    seeds=Seeds(first=1520, default=5, into=("data.seed",)),
    score=score,
    choose="val/loss",
    claims=[*claims("AB", "ReLU"), *claims("CD", "GELU"), *claims("EF", "learned leak")],
    verdict=Rule(reproduced=all_of("ABCD"), partly=any_of("AB")),
    unit="score",
    figure=figure,
)
