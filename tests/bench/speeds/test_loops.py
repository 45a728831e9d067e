"""What experiments share: steps, waiting, moving, gradients, summaries, and the comparison of batches and sizes."""

from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from graphseq.bench import (
    AtLeast,
    ConstantTime,
    Linear,
    Moved,
    OutputsDiffer,
    Waiting,
    alternately,
    differentiated,
    group_figure,
    group_table,
    microseconds,
    same_batches,
    train_steps,
    trainer_overhead,
)
from graphseq.bench.speeds import loops
from graphseq.core import make
from graphseq.data import TabularDataModule
from graphseq.tasks import Classification


def test_train_steps_are_those_of_a_plain_loop():
    x, y = torch.randn(4, 8, 3), torch.randn(4, 8, 1)
    torch.manual_seed(0)
    ours = nn.Linear(3, 1)
    torch.manual_seed(0)
    plain = nn.Linear(3, 1)
    optimizers = [torch.optim.Adam(network.parameters(), lr=0.1) for network in (ours, plain)]
    after = []
    steps = train_steps(
        zip(x, y, strict=True),
        lambda batch: (ours(batch[0]) - batch[1]).square().mean(),
        optimizers[0],
        lambda: after.append(ours.weight.detach().clone()),
    )
    for number, loss in enumerate(steps):
        expected = (plain(x[number]) - y[number]).square().mean()
        optimizers[1].zero_grad()
        expected.backward()
        optimizers[1].step()
        assert torch.equal(loss, expected.detach())
        assert not loss.requires_grad
        assert len(after) == number + 1
        assert torch.equal(after[-1], plain.weight)
    assert number == 3


def test_waiting_is_counted_and_nothing_else(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(loops, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def slow():
        for item in range(3):
            clock.now += 2.0
            yield item
        clock.now += 1.0  # the end is waited for too

    waiting = Waiting(slow())
    for _ in range(2):
        waiting.loader = slow()
        for _ in waiting:
            clock.now += 5.0
        assert (waiting.seconds, waiting.share) == (7.0, 7.0 / 22.0)


def test_moved_batches_have_the_length_of_their_loader():
    moved = Moved([(torch.ones(1), torch.zeros(2))] * 3, "meta")
    assert len(moved) == len(list(moved)) == 3
    assert all(part.device.type == "meta" for batch in moved for part in batch)
    assert [batch.device.type for batch in Moved([torch.ones(1)], "meta")] == ["meta"]


@pytest.mark.parametrize("backward", [False, True])
def test_differentiated_gives_output_and_gradient(backward):
    values = torch.randn(5, 3)
    found = differentiated(torch.sin, values, backward)()
    assert torch.equal(found[0], values.sin())
    if backward:
        assert torch.allclose(found[1], values.cos() * torch.linspace(-1, 1, 15).view(5, 3))
    assert len(found) == 1 + backward


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ([(torch.ones(2), torch.zeros(2)), (torch.ones(2), torch.ones(2))], "batch 1 differs in 1"),
        ([(torch.ones(2), torch.zeros(2)), (torch.ones(2).double(), torch.zeros(2))], "batch 1 differs in 0"),
        ([(torch.ones(2), torch.zeros(2))], "the peer ends before batch 1"),
        ([(torch.ones(2), torch.zeros(2)), (torch.ones(2),)], "batch 1 differs in 1"),
        ([(torch.ones(2), torch.zeros(2))] * 3, "ours ends before batch 2"),
        ([(torch.ones(2), 0.0), (torch.ones(2), torch.zeros(2))], "batch 0 differs in 1"),
    ],
)
def test_batches_that_differ_are_named(other, named):
    ours = [(torch.ones(2), torch.zeros(2))] * 2
    same_batches(ours, [(torch.ones(2), torch.zeros(2))] * 2)
    with pytest.raises(OutputsDiffer, match=named):
        same_batches(ours, other)


def ratio(kind, way, **medians):
    return {"kind": kind, "way": way, "ratio": {f"ours/{peer}": {"median": median} for peer, median in medians.items()}}


def test_groups_are_those_of_the_key_and_columns_those_of_the_peers():
    rows = [ratio("sum", "up", a=2.0, b=1.0), ratio("sum", "up", a=8.0), ratio("max", "down", a=3.0)]
    assert group_table("kind", ["way"])(rows) == [
        {"kind": "sum", "a up": "4.00 (2.00-8.00)", "b up": "1.00 (1.00-1.00)"},
        {"kind": "max", "a down": "3.00 (3.00-3.00)"},
    ]
    figure = Figure()
    group_figure("kind")(rows, figure, "Ours is faster.")
    (axes,) = figure.axes
    assert figure.get_suptitle() == "Ours is faster."
    assert [label.get_text() for label in axes.get_xticklabels()] == ["sum", "max"]
    assert [len(points.get_offsets()) for points in axes.collections] == [3, 1]


def test_constant_time_holds_the_largest_against_the_smallest():
    lines = [{"nodes": 10 ** (at + 1), **microseconds("us", [t * 1e-6], 1)} for at, t in enumerate((1.2, 1.0, 1.4))]
    row = {"sweep": "nodes", "sizes": lines}
    claim = ConstantTime(["nodes"], {"us": "steps"}, 1.3, "a node")
    (check,) = claim([row, {"sweep": "other", "sizes": []}])
    assert (check.value, check.holds) == (pytest.approx(1.4), False)
    assert check.claim == "steps: time of a node is constant within 1.3 from 10 to 1,000 nodes"
    found = "the time of a node varies with the size by at most 1.40 times in steps"
    assert claim.in_words([row]) == f"{found} (with the number of nodes: more than 1.3)"
    assert ConstantTime(["nodes"], {"us": "steps"}, 1.41, "a node").in_words([row]) == found
    assert ConstantTime(["nodes"], {"us": "steps"}, 1.41, "a node")([row])[0].holds
    with pytest.raises(ValueError, match=r"bound is 1"):
        ConstantTime(["nodes"], {"us": "steps"}, 1.0, "a node")


def test_an_aim_is_a_check_beside_the_claim():
    row = {"data": "a", "ratio": {"ours/peer": {"median": 3.0}}}
    claim, aim = AtLeast("ours/peer", 2, text="{bound} times as fast", aim=4)([row])
    assert (claim.claim, claim.bound, claim.holds) == ("claim: 2 times as fast (smallest: data a)", 2, True)
    assert (aim.claim, aim.bound, aim.holds) == ("aim: 4 times as fast (smallest: data a)", 4, False)
    with pytest.raises(ValueError, match="aim is 2"):
        AtLeast("ours/peer", 2, aim=2)


@pytest.mark.parametrize(("power", "holds"), [(1, True), (2, False)])
def test_a_straight_line_is_told_from_a_bent_one(power, holds):
    rows = [{"size": f"{n} blocks", "ratio": {"a/b": {"median": 1 / (1 + n**power)}}} for n in (2, 4, 8, 16, 32)]
    claim = Linear("a/b", "size", 0.98)
    assert claim(rows)[0].holds == holds
    assert claim(rows[:1]) == []
    with pytest.raises(ValueError, match="bound is 1"):
        Linear("a/b", "size", 1.0)


def test_sizes_are_timed_in_turn():
    order = []
    seconds = alternately([lambda: order.append("a"), lambda: order.append("b")], 2)
    assert [len(times) for times in seconds] == [2, 2]
    assert order == ["a", "b", "a", "b", "b", "a"]


class Slow(nn.Linear):
    """A layer whose call takes three seconds of a clock that nothing else moves but the plain loop."""

    now = 0.0

    def forward(self, x):
        Slow.now += 3.0
        return super().forward(x)


def test_trainer_overhead_is_that_of_a_step(tmp_path, monkeypatch):
    monkeypatch.setattr(loops, "time", SimpleNamespace(perf_counter=lambda: Slow.now))
    (tmp_path / "table.csv").write_text("x,y\n" + "\n".join(f"{n / 9},{n % 2}" for n in range(40)))
    data = TabularDataModule(path=str(tmp_path / "table.csv"), target="y", batch_size=4)
    data.prepare_data()
    data.setup("fit")
    taken = []

    def plain():
        for number in range(9):
            taken.append(number)
            Slow.now += 1.0
            yield

    task = Classification(make(Slow, 1, 2), num_outputs=2)
    assert trainer_overhead(task, data.train_dataloader(), plain, 3, 2) == 2.0
    assert taken == [0, 1, 2, 0, 1, 2]
