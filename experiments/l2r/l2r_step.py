"""What learned weights cost: a step of the weights, an epoch, and the published procedure for a batch.

Source: arXiv 2312.12475, whose claim is a cost that does not depend on the number of training graphs; its released code
learns new weights from 1 for every batch in 20 steps of SGD. ``ours`` alternates with a ``base``, which the case names:

* *training set*: one step of the weights as the task takes it (batches of 64, width 64, a full queue of 4 blocks,
  clusters known) with 20,000 training graphs, beside 1,000.
* *queue*: the same step with a queue of 2 to 32 blocks, beside none.
* *epoch*: an epoch of ``Reweighted`` at its defaults with either objective, all epochs weighted, beside
  ``Classification``, under the Trainer: 1,000 motif graphs, GIN of 3 layers, width 64. The start of a fit is in both.
* *published*: the 20 steps of the released procedure on one batch and one block of memory (128 rows, 64 variables):
  softmax weights, all pairs, loss / 70 plus the sum of their squares, SGD with momentum 0.9 at 1, a tenth of it after
  half of the steps. The base is a plain re-implementation: one covariance for each random feature, as in the released
  code (one feature), and one for each pair of variables, as the formula is printed (five features, 16 variables, since
  it takes seconds at 64). Ours takes ``decorrelation_loss`` instead, in the same steps on the same random numbers;
  weights after all steps are compared first. The other parts compare different work, whose outputs are not equal.

Rule: (1) 20,000 graphs cost at most 1.3 times 1,000; (2) time is linear in the queue: a line through the medians
explains at least 98 % of their variance; (3) an epoch with the default objective takes at most 2 times a plain one; (4)
and (5) the base takes no less time than ours for equal weights, in the released form and in the printed one.
"""

import itertools
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from experiments.l2r.figures import MOST, draw_steps, read_steps, steps_in_words
from graphseq.bench import AtLeast, Call, Linear, Row, Scale, Setting, Speed, TakesAtMost, bare_trainer, same_outputs
from graphseq.bench.speeds.loops import train_steps
from graphseq.bench.speeds.timing import exhaust
from graphseq.data import MotifDataModule
from graphseq.models import GraphClassifier
from graphseq.nn import DecorrelationOuter, FeatureQueue, UnrolledOuter
from graphseq.ops import decorrelation_loss, random_fourier_features
from graphseq.tasks import Classification, Reweighted

__all__ = ["speed"]

_BATCH, _WIDTH, _SMALL = 64, 64, 1000
_LARGE = {"quick": 2000, "default": 20_000, "full": 20_000}
_BLOCKS = {"quick": (2, 4, 8), "default": (2, 4, 8, 16, 32), "full": (2, 4, 8, 16, 32)}
_INNER_STEPS, _BALANCE = 20, 70.0  # of the released code: steps a batch, and by how much the loss is divided
_FORMS = {"released": (_WIDTH, 1), "printed": (16, 5)}  # variables and random features


def _cases(scale: Scale) -> list[Row]:
    cases = [
        ("training set", f"{_LARGE[scale]} graphs", f"{_SMALL} graphs"),
        *(("queue", f"{blocks} blocks", "0 blocks") for blocks in _BLOCKS[scale]),
        ("epoch", "decorrelation", "plain"),
        ("epoch", "unrolled head", "plain"),
        *(("published", form, "loop") for form in _FORMS),
    ]
    return [dict(zip(("part", "what", "base"), case, strict=True)) for case in cases]


def _side(case: Row, setting: Setting, side: str) -> Call:
    """Return the call of one side of a case, ``what`` for ours or ``base``."""
    part, name, device = case["part"], case[side], setting.device
    if part == "training set":
        return _weight_step(int(name.split()[0]), 4, device)
    if part == "queue":
        return _weight_step(_SMALL, int(name.split()[0]), device)
    if part == "epoch":
        return _epoch(name, 128 if setting.scale == "quick" else _SMALL, device)
    base = {"released": _loss_by_feature, "printed": _loss_by_pair}[case["what"]]
    return _published(_our_loss if side == "what" else base, *_FORMS[case["what"]], device)


def _network() -> GraphClassifier:
    torch.manual_seed(0)
    return GraphClassifier(8, 2, hidden_channels=_WIDTH, num_layers=3, conv="gin")


def _fit(task: Any, data: Any, device: str, **options: Any) -> None:
    with bare_trainer(accelerator=device, limit_val_batches=0, **options) as trainer:
        trainer.fit(task, data)


def _weight_step(count: int, blocks: int, device: str) -> Call:
    """Return one step of the weights of a task that has just been fitted on a few batches."""
    data = MotifDataModule(num_train=count, num_val=0, num_test=0, batch_size=_BATCH)
    task = Reweighted(_network(), num_outputs=2, queue=FeatureQueue(blocks), start_epoch=0)
    _fit(task, data, device, max_epochs=1, limit_train_batches=3)
    task = task.to(device)
    batch = next(iter(data.batches("train"))).to(device)
    losses = task.losses_of(batch)
    z = losses.representation.detach()
    generator = torch.Generator().manual_seed(0)
    while len(task.queue) < task.queue.capacity:
        task.queue.push(torch.randn(z.shape, generator=generator).to(device), torch.zeros(len(z), device=device))
    cast(DecorrelationOuter, task.outer).recluster(z, None, generator)
    return lambda: task._step_weights(losses, z, batch.idx)


def _epoch(name: str, count: int, device: str) -> Call:
    data = MotifDataModule(num_train=count, num_val=_BATCH, num_test=0, batch_size=_BATCH)
    build: dict[str, Callable[[], Any]] = {
        "plain": lambda: Classification(_network(), num_outputs=2),
        "decorrelation": lambda: Reweighted(_network(), num_outputs=2, start_epoch=0),
        "unrolled head": lambda: Reweighted(_network(), num_outputs=2, outer=UnrolledOuter(), start_epoch=0),
    }
    return lambda: _fit(build[name](), data, device, max_epochs=1)


def _loss_by_feature(features: Tensor, weight: Tensor) -> Tensor:
    """Sum over random features of the squared covariances of all pairs, each counted twice, as in released code."""
    total = features.new_zeros(())
    for column in features.unbind(2):
        mean = (weight[:, None] * column).sum(0, keepdim=True)
        covariance = (weight[:, None] * column).T @ column - mean.T @ mean
        total = total + covariance.square().sum() - covariance.diagonal().square().sum()
    return total


def _loss_by_pair(features: Tensor, weight: Tensor) -> Tensor:
    """Sum over pairs of variables of the squared norm of their covariance, one matrix for each pair."""
    total = features.new_zeros(())
    for first, second in itertools.combinations(range(features.size(1)), 2):
        left, right = (side - (weight[:, None] * side).sum(0) for side in (features[:, first], features[:, second]))
        total = total + ((weight[:, None] * left).T @ right).square().sum()
    return 2 * total


def _our_loss(features: Tensor, weight: Tensor) -> Tensor:
    return 2 * decorrelation_loss(features, weight, reduction="sum")


def _published(loss_of: Callable[[Tensor, Tensor], Tensor], variables: int, num_features: int, device: str) -> Call:
    """Return the published procedure for one batch: a call that gives its weights."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(_BATCH, variables, generator=generator) @ torch.randn(variables, variables, generator=generator)
    shape = (_INNER_STEPS, variables, num_features)
    omega = torch.randn(shape, generator=generator).to(device)
    phase = (torch.rand(shape, generator=generator) * (2 * torch.pi)).to(device)
    rows = torch.cat([z, z.flip(0).roll(1, 1)]).to(device)
    remembered = torch.ones(_BATCH, device=device)

    def learn() -> Tensor:
        number = torch.ones(_BATCH, device=device, requires_grad=True)  # nothing is remembered of a graph
        optimizer = torch.optim.SGD([number], lr=1.0, momentum=0.9)

        def loss_at(step: int) -> Tensor:
            optimizer.param_groups[0]["lr"] = 1.0 if step < _INNER_STEPS // 2 else 0.1
            features = random_fourier_features(rows, num_features, omega=omega[step], phase=phase[step])
            weight = torch.cat([number, remembered]).softmax(0)
            return loss_of(features, weight) / _BALANCE + weight.square().sum()

        exhaust(train_steps(range(_INNER_STEPS), loss_at, optimizer))
        return number.detach().softmax(0)

    return learn


_SAME = same_outputs(rtol=0.0, atol=1e-5)
_STEP, _EPOCH = "(1) step of the weights, 20000 graphs over 1000 graphs", "(3) epoch with weights over plain epoch"
_LINE = "(2) share of the variance that a line in the queue explains"
speed = Speed(
    name="speed.l2r_step",
    protocol=__doc__,
    cases=_cases,
    prepare=lambda case, setting: (case, setting),
    contenders={"ours": lambda subject: _side(*subject, "what"), "base": lambda subject: _side(*subject, "base")},
    equal=lambda subject, calls: _SAME(subject, calls) if subject[0]["part"] == "published" else {"difference": None},
    rounds={"quick": 3, "default": 15, "full": 41},
    seconds={"quick": 0.005, "default": 0.05, "full": 0.1},
    columns=["difference"],
    draw=lambda rows, figure, finding: draw_steps(rows, figure, finding, MOST),
    finding=steps_in_words,
    read=read_steps,
    claims=[
        TakesAtMost("ours/base", MOST["training set"], {"part": "training set"}, _STEP),
        Linear("ours/base", "what", 0.98, {"part": "queue"}, _LINE),
        TakesAtMost("ours/base", MOST["decorrelation"], {"what": "decorrelation"}, _EPOCH),
        AtLeast("ours/base", 1.0, {"what": "released"}, "(4) published procedure, released, over ours"),
        AtLeast("ours/base", 1.0, {"what": "printed"}, "(5) published procedure, printed, over ours"),
    ],
)
