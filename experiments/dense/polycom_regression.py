"""Polynomial activations on a smooth function of three variables, against ReLU, a single square and GELU."""

import math
import tempfile
from functools import partial
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Generator, Tensor, nn

from graphseq.bench import Above, Effect, Row, Rule, Scale, Seeds, all_of, any_of, bare_trainer
from graphseq.core import make
from graphseq.data import StoreDataModule, TensorStore
from graphseq.models import MLP
from graphseq.nn import PolyNorm, PolyReLU, SquaredReLU
from graphseq.tasks import Regression

PROTOCOL = """\
Task: sin(3 a) b^2 + c^3 on the cube [-1, 1]^3, without noise: 1,000 points to train on, 1,000 to validate and 4,000 to
test, drawn uniformly. Multilayer perceptrons of width 64 with one or two hidden layers. 1,000 steps of Adam on all
points at once, with the learning rates 0.003 and 0.01; the squared error is validated every 50 steps, and of all
states of both rates the one with the lowest counts, for all arms alike. The score is the decimal logarithm of the mean
squared error of the test points, so that a difference of 0.301 is a factor of two. The arms of a seed share points,
and the weights before training.

Arms: the activation: *ReLU*; *GELU*; *ReLU²*, the control that tells a polynomial from a square; *PolyReLU* and
*PolyNorm* of order 3, which have 4 coefficients more for each hidden layer.

Seen before this rule was written, by the same steps with the learning rate 0.003: with one hidden layer PolyReLU has
2.0 and PolyNorm 2.6 times the median error of ReLU (5 seeds), with two hidden layers 0.47 and 0.52 (3 seeds); and 50
steps of each arm from seed 1480, to try the code. All of it was run once by a training loop of its own, with these
seeds and this rule, before it was made to train the task of the library; (A) and (B) held. The rule asks for half
of ReLU's error at both depths, since "two layers" can mean either.

Conditions, paired by seed: with two hidden layers, ReLU less (A) PolyReLU and (B) PolyNorm lies above 0.301; with one
hidden layer, ReLU less (C) PolyReLU and (D) PolyNorm does. With two hidden layers, (E) GELU less PolyNorm, (F) ReLU²
less PolyReLU and (G) ReLU² less PolyNorm lie above 0.

Rule: *reproduced* if (A), (B), (C) and (D) hold; *partly* if one of them does; else *not reproduced*. (E), (F) and (G)
are reported.
"""

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "ReLU²": SquaredReLU,
    "PolyReLU": PolyReLU,
    "PolyNorm": PolyNorm,
}
WIDTH, RATES, EVERY = 64, (0.003, 0.01), 50
STEPS: dict[Scale, int] = {"quick": 50, "default": 1000, "full": 1000}
TRAIN, VALIDATION, TEST = 1000, 1000, 4000


def target(x: Tensor) -> Tensor:
    """Return the function that is learned, of points (n, 3)."""
    a, b, c = x.unbind(1)
    return ((3 * a).sin() * b.square() + c**3)[:, None]


class Cube(StoreDataModule):
    """Points of the cube and the values of the function there; batches have all points of a split."""

    def read(self) -> tuple[TensorStore, dict[str, Tensor]]:
        """Return points, values and splits."""
        x = 2 * torch.rand(TRAIN + VALIDATION + TEST, 3, generator=Generator().manual_seed(self.seed)) - 1
        parts = torch.arange(len(x)).split([TRAIN, VALIDATION, TEST])
        return TensorStore(x, target(x)), dict(zip(("train", "val", "test"), parts, strict=True))


def train(arm: str, layers: int, rate: float, seed: int, scale: Scale) -> tuple[float, float, float]:
    """Return the lowest validation error of a training, the test error of that state, and the learning rate."""
    torch.manual_seed(seed)
    network = MLP(3, 1, WIDTH, layers + 1, activation=make(ACTIVATIONS[arm]))
    task = Regression(network, 1, optimizer=partial(torch.optim.Adam, lr=rate))
    data = Cube(TRAIN, eval_batch_size=TEST, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        best = ModelCheckpoint(folder, monitor="val/loss", save_weights_only=True)
        options = {"max_epochs": STEPS[scale], "check_val_every_n_epoch": EVERY, "num_sanity_val_steps": 0}
        with bare_trainer(**options, enable_checkpointing=True, callbacks=[best], accelerator="cpu") as trainer:
            trainer.fit(task, data)
            tested = trainer.test(task, data, best.best_model_path, verbose=False, weights_only=True)[0]
    return float(best.best_model_score), tested["test/loss"], rate


def run(cell: Row, scale: Scale, effect: Effect) -> Row:
    """Train an arm with each learning rate, and test the state with the lowest validation error."""
    found = [train(cell["arm"], cell["hidden layers"], rate, cell["seed"], scale) for rate in RATES]
    validation, test, rate = min(found)
    return {"val/mse": validation, "test/mse": test, "rate": rate, "error": math.log10(test)}


ARMS: dict[str, dict[str, Any]] = {name: {"activation": name} for name in ACTIVATIONS}

effect = Effect(
    name="effect.polycom_regression",
    source="arXiv 2411.03884",
    protocol=PROTOCOL,
    arms=ARMS,
    grid={"hidden layers": [1, 2]},
    run=run,
    seeds=Seeds(first=1485, default=5),
    score="error",
    better="lower",
    columns={"squared error": "test/mse"},
    claims=[
        Above("A", "ReLU@2 - PolyReLU@2", math.log10(2)),
        Above("B", "ReLU@2 - PolyNorm@2", math.log10(2)),
        Above("C", "ReLU@1 - PolyReLU@1", math.log10(2)),
        Above("D", "ReLU@1 - PolyNorm@1", math.log10(2)),
        Above("E", "GELU@2 - PolyNorm@2"),
        Above("F", "ReLU²@2 - PolyReLU@2"),
        Above("G", "ReLU²@2 - PolyNorm@2"),
    ],
    verdict=Rule(reproduced=all_of("ABCD"), partly=any_of("ABCD")),
    unit="logarithm of the squared error",
)
