import math

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.nn import functional

import graphseq
from graphseq.core import DataError, EventBatch
from graphseq.data import RandomNegatives, RankingNegatives
from graphseq.models import TGAT, EdgeBank
from graphseq.nn import memory_coherence_loss
from graphseq.tasks import TemporalLinkPrediction
from tests.tasks.streams.streams import build, events, network, same, state, trainer


def scored(task, data, split):
    """Logits of a split, by hand, from the state at hand, with the marks of new nodes."""
    task.eval()
    logits, new = [], []
    with torch.no_grad():
        for batch in data.batches(split):
            output, update = task.network.forward_with_update(batch)
            task.network.commit(update)
            logits.append(output.double())
            new.append(batch.new_node)
    return torch.cat(logits), torch.cat(new)


def curves(logits):
    truth = torch.zeros_like(logits)
    truth[:, 0] = 1
    truth, flat = truth.flatten().numpy(), logits.flatten().numpy()
    return average_precision_score(truth, flat), roc_auc_score(truth, flat)


def rank(row):
    """Rank of the first score, in a plain loop."""
    event, *others = row
    return 1 + sum(other > event for other in others) + sum(other == event for other in others) / 2


def test_metrics_are_pooled_over_the_split_and_over_events_with_new_nodes():
    data = events(inductive_ratio=0.15, eval_negatives=RankingNegatives(9))
    task, data = build(data=data, hits_at=[1, 3], per_batch_ap=True)
    run = trainer(max_epochs=1)
    run.fit(task, data)
    before = task._after_training.buffers
    logged = {name: float(value) for name, value in run.callback_metrics.items()}
    task.network.load_state_buffers(before)
    logits, new = scored(task, data, "val")
    assert logits.shape == (len(data.splits["val"]), 10)
    assert 0 < int(new.sum()) < len(new)
    ap, auc = curves(logits)
    new_ap, new_auc = curves(logits[new])
    ranks = [rank(row) for row in logits.tolist()]
    expected = {
        "val/ap": ap,
        "val/auc": auc,
        "val/new_ap": new_ap,
        "val/new_auc": new_auc,
        "val/mrr_of_10": sum(1 / r for r in ranks) / len(ranks),
        "val/hits@1": sum(r <= 1 for r in ranks) / len(ranks),
        "val/hits@3": sum(r <= 3 for r in ranks) / len(ranks),
        "val/batch_ap": sum(curves(part)[0] for part in logits.split(60)) / math.ceil(len(logits) / 60),
    }
    for name, value in expected.items():
        assert logged[name] == pytest.approx(value, abs=1e-5), name
    assert logged["val/batch_ap"] != pytest.approx(logged["val/ap"], abs=1e-3)
    positive, negative = functional.softplus(-logits[:, 0]), functional.softplus(logits[:, 1:])
    assert logged["val/loss"] == pytest.approx(float(positive.mean() + negative.mean()), abs=1e-5)
    tested = run.test(task, data, verbose=False)[0]
    assert {"test/new_ap", "test/new_auc", "test/hits@3"} <= tested.keys()


def test_the_name_of_mrr_is_that_of_the_candidates_of_the_run():
    task, run = TemporalLinkPrediction(EdgeBank()), trainer()
    for count, expected in ((1, set()), (9, {"test/mrr_of_10"}), (14, {"test/mrr_of_15"}), (2, set())):
        data = events(num_events=60, eval_negatives=RandomNegatives(count))
        logged = run.test(task, data, verbose=False)[0]
        assert {name for name in logged if "mrr" in name} == expected


def test_a_split_without_new_nodes():
    task, data = build(data=events(num_sources=5, num_destinations=4))
    assert not any(batch.new_node.any() for batch in data.batches("val"))
    run = trainer(max_epochs=2)
    with pytest.warns() as caught:
        run.fit(task, data)
    assert not [warning for warning in caught if "is NaN" in str(warning.message)]
    assert "val/ap" in run.callback_metrics
    assert "val/new_ap" not in run.callback_metrics


def test_metrics_start_anew_in_each_epoch():
    """With frozen weights every epoch is the same."""
    task, data = build("jodie", data=events(inductive_ratio=0.15), lr=0.0)
    runs = [trainer(max_epochs=epochs) for epochs in (1, 3)]
    for run in runs:
        run.fit(task, data)
    one, three = ({k: float(v) for k, v in run.callback_metrics.items() if "val" in k} for run in runs)
    assert one == three
    assert "val/new_ap" in one


# coherence


def test_coherence_is_logged_and_has_a_gradient():
    logged = {}
    for weight in (0.0, 0.5):
        task, data = build("jodie", coherence_weight=weight)
        run = trainer(max_epochs=1)
        run.fit(task, data)
        logged[weight] = ({k: float(v) for k, v in run.callback_metrics.items()}, dict(task.named_parameters()))
    assert "train/coherence" not in logged[0.0][0]
    assert 0 < logged[0.5][0]["train/coherence"] < 2
    assert not same(logged[0.0][1], logged[0.5][1])


@pytest.mark.parametrize("mode", ["global", "node"])
@pytest.mark.parametrize("kind", ["jodie", "pres", "tgn"])
def test_the_loss_is_the_sum_of_its_terms(kind, mode):
    task, data = build(kind, coherence_weight=0.25, coherence=mode)
    task.eval()  # no dropout, so that the same batch can be asked twice
    batches = list(data.batches("train"))
    for batch in batches[:3]:
        task.step(batch)
    before = state(task)
    logits, update = task.network.forward_with_update(batches[3])
    term = memory_coherence_loss(update.previous, update.memory, update.pending, mode)
    own = functional.softplus(-logits[:, 0]).mean() + functional.softplus(logits[:, 1:]).mean()
    expected = torch.autograd.grad(own + 0.25 * term, list(task.model.memory.cell.parameters()))
    of_term = torch.autograd.grad(
        memory_coherence_loss(*_again(task, batches[3]), mode), list(task.model.memory.cell.parameters())
    )
    assert all(bool(part.any()) for part in of_term)
    step = task.step(batches[3])
    torch.testing.assert_close(step.loss, own + 0.25 * term, rtol=0, atol=0)
    given = torch.autograd.grad(step.loss, list(task.model.memory.cell.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(given, expected, strict=True))
    task.network.load_state_buffers(before)
    # only training has the term
    torch.testing.assert_close(task.step(batches[3], "val").loss, own, rtol=0, atol=0)
    assert (step.size, step.prediction.shape, step.target.sum().item()) == (70, (70, 2), 70)


def _again(task, batch):
    _, update = task.network.forward_with_update(batch)
    return update.previous, update.memory, update.pending


def test_forward_changes_nothing():
    task, data = build()
    task.eval()
    first, second = list(data.batches("train"))[:2]
    task.step(first)
    before = state(task)
    logits = task(second)
    assert same(state(task), before)
    assert torch.equal(logits, task.step(second).prediction)
    assert not same(state(task), before)


# refusals


def test_wrong_arguments():
    _, data = build()
    for options, message in (
        ({"coherence_weight": -0.1}, "coherence_weight is -0.1; it must be at least 0"),
        ({"coherence_weight": float("nan")}, "coherence_weight is nan"),
        ({"coherence": "pairs"}, "coherence is 'pairs'"),
        ({"hits_at": [0]}, r"hits_at is \[0\]; give a list of integers of at least 1"),
        ({"hits_at": [1.5]}, r"hits_at is \[1.5\]"),
    ):
        with pytest.raises(ValueError, match=message):
            TemporalLinkPrediction(network("jodie", data), **options)
    with pytest.raises(ValueError, match="TGAT .*memory"):
        TemporalLinkPrediction(TGAT(data.num_nodes), coherence_weight=0.1)
    with pytest.raises(DataError, match=r"coherence_weight is 0\.1, .*EdgeBank"):
        TemporalLinkPrediction(EdgeBank(), coherence_weight=0.1).step(next(data.batches("train")))
    TemporalLinkPrediction(TGAT(data.num_nodes))
    TemporalLinkPrediction(EdgeBank())


def test_events_without_negatives():
    task, data = build(data=events(negatives=False))
    with pytest.raises(DataError, match=r"train_negatives, eval_negatives"):
        trainer(max_epochs=1).fit(task, data)


@pytest.mark.parametrize("call", ["fit", "validate", "test"])
def test_more_hits_than_negatives_are_refused_before_the_run(call):
    class Untouched(TemporalLinkPrediction):
        def step(self, batch, stage):
            raise AssertionError("a batch was read")

    data = events(eval_negatives=RankingNegatives(4))
    task = Untouched(network("tgn", data), hits_at=[1, 5])
    with pytest.raises(DataError, match=r"hits_at is \[1, 5\], .*(val|test) .*Rank.* 4 "):
        getattr(trainer(), call)(task, data)
    fine, data = build(data=events(eval_negatives=RankingNegatives(5)), hits_at=[1, 5])
    getattr(trainer(max_epochs=1), call)(fine, data)


def test_one_event_and_one_node():
    """The smallest batches there are: one event, a loop, and the same event twice."""
    _, data = build()
    task = TemporalLinkPrediction(network("jodie", data))
    one = torch.tensor([1])
    for src, dst, position in ((one, one, 0), (torch.tensor([1, 1]), torch.tensor([2, 2]), 1)):
        t = position + torch.zeros_like(src)
        e_id = position + torch.arange(len(src))
        batch = EventBatch(src, dst, t, torch.zeros(len(src), 0), e_id, start=position, neg_dst=src[:, None] + 2)
        step = task.step(batch)
        step.loss.backward()
        assert bool(torch.isfinite(step.loss))
    assert task.network.memory.pending.sum() == 2


def test_record_and_hyperparameters(tmp_path):
    task, data = build("pres", coherence_weight=0.1, coherence="node", hits_at=[1], per_batch_ap=True)
    run = trainer(max_epochs=1, limit_train_batches=2)
    run.fit(task, data)
    run.save_checkpoint(tmp_path / "a.ckpt")
    again = graphseq.load(tmp_path / "a.ckpt")
    assert (again.coherence_weight, again.coherence, again.hits_at, again.per_batch_ap) == (0.1, "node", [1], True)
    assert float(again.network.corrector.time_scale) == float(task.network.corrector.time_scale) != 1
