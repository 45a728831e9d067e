import functools
import warnings
from dataclasses import replace

import lightning
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional

import graphseq
from graphseq.core import CheckpointError, DataError, EventBatch
from graphseq.data import BitcoinDataModule, PrimarySchoolDataModule, TBatches, TemporalDataModule
from graphseq.models import TGN, EdgeBank
from graphseq.nn import NodeDecoder
from graphseq.tasks import TemporalNodeClassification, static_node_embeddings
from tests.reliability.test_resume import Interrupted, SaveAndStop
from tests.tasks.streams.streams import build as build_links
from tests.tasks.streams.streams import events, network, same, state, trainer


def changes(**options):
    """A stream in which most sources drop out, so that every split has state changes."""
    given = {"num_events": 1500, "num_sources": 80, "dropout_ratio": 0.9, "num_edge_features": 2, "seed": 3}
    return events(**{**given, **options})


def build(kind="tgn", data=None, seed=0, lr=0.01, **options):
    lightning.seed_everything(seed, verbose=False)
    data = changes() if data is None else data
    optimizer = functools.partial(torch.optim.Adam, lr=lr)
    return TemporalNodeClassification(network(kind, data), optimizer=optimizer, **options), data


def everything(task):
    return {name: value.clone() for name, value in task.state_dict().items()}


@pytest.mark.parametrize("kind", ["tgn", "dyrep", "pres"])
def test_only_the_decoder_learns(kind):
    task, data = build(kind)
    first = everything(task)
    trainer(max_epochs=1).fit(task, data)
    learned = {name for name, value in task.named_parameters() if not torch.equal(value, first[name])}
    assert learned == {name for name, _ in task.named_parameters() if name.startswith("decoder.")}
    assert all(value.grad is None for value in task.model.parameters())
    assert task.model.memory.memory.any()


def test_the_network_learns_too_if_it_is_not_frozen():
    task, data = build(freeze=False)
    first = everything(task)
    trainer(max_epochs=1).fit(task, data)
    still = {name for name, value in task.named_parameters() if torch.equal(value, first[name])}
    assert {name for name in still if not name.startswith("model.decoder.")} == set()


@pytest.mark.parametrize("kind", ["tgn", "dyrep"])
def test_the_prediction_is_made_before_the_event_is_remembered(kind):
    """Logits of a batch do not depend on what its events are, only on who and when; nor on labels or negatives."""
    task, data = build(kind)
    task.eval()
    batches = list(data.batches("train"))
    for batch in batches[:3]:
        task.step(batch)
    before, batch = state(task), batches[3]
    step = task.step(batch)
    after = state(task)
    task.network.load_state_buffers(before)
    assert torch.equal(task(batch), step.prediction)
    assert same(state(task), before)
    partners = batch.dst.roll(1)
    other = replace(batch, dst=partners, msg=batch.msg + 1, y=1 - batch.y, neg_dst=None)
    torch.testing.assert_close(task(other), step.prediction, rtol=0, atol=1e-6)
    task.step(other)
    assert not same(state(task), after)


def reference(task, data, splits):
    """Logits by a loop over batches with the network's own encode, in evaluation."""
    task.eval()
    task.network.reset_state()
    logits = {}
    with torch.no_grad():
        for split in splits:
            logits[split] = []
            for batch in data.batches(split):
                update = task.network.encode(batch)
                rows = task.network.decoded(update)[update.plan.row[: len(batch)]]
                logits[split].append(task.decoder(rows)[:, 0])
                task.network.commit(update)
    return {split: torch.cat(parts) for split, parts in logits.items()}


def test_loss_and_metrics():
    task, data = build(pos_weight=5.0)
    run = trainer(max_epochs=1)
    run.fit(task, data)
    logged = {name: float(value) for name, value in run.callback_metrics.items()}
    logged |= run.test(task, data, verbose=False)[0]
    logits = reference(task, data, ["train", "val", "test"])
    for split in ("val", "test"):
        y = data.events.y[data.splits[split]]
        assert 0 < int(y.sum()) < len(y)
        assert logged[f"{split}/auc"] == pytest.approx(roc_auc_score(y, logits[split]), abs=1e-5)
        assert logged[f"{split}/ap"] == pytest.approx(average_precision_score(y, logits[split]), abs=1e-5)
        p = logits[split].double().sigmoid()
        loss = -(5 * y * p.log() + (1 - y) * (1 - p).log()).mean()
        assert logged[f"{split}/loss"] == pytest.approx(float(loss), abs=1e-5)
    unweighted, _ = build()
    batch = next(data.batches("train"))
    unweighted.eval()
    step = unweighted.step(batch)
    expected = functional.binary_cross_entropy(step.prediction[:, 0].sigmoid(), batch.y.float())
    torch.testing.assert_close(step.loss, expected)


def test_state_changes_are_learned():
    """The stream's rule is there to be found: a source that drops out shows it in its last events."""
    scores = []
    for seed in range(3):
        task, data = build("jodie", changes(num_events=3000, num_sources=150), seed=seed, pos_weight=5.0)
        run = trainer(max_epochs=5)
        run.fit(task, data)
        scores.append(run.test(task, data, verbose=False)[0]["test/auc"])
    assert sum(scores) / 3 > 0.65, scores


def test_the_frozen_network_has_no_dropout():
    task, data = build("tgn")
    assert not task.model.training
    assert task.decoder.training
    trainer(max_epochs=1, limit_val_batches=0).fit(task, data)
    expected = state(task)
    task.network.reset_state()
    with torch.no_grad():
        for batch in data.batches("train"):
            task.network.commit(task.network.encode(batch))
    assert same(state(task), expected)
    thawed, _ = build(freeze=False)
    assert thawed.model.training


def test_the_moments_of_pres_move_in_training_only():
    task, data = build("pres")
    run = trainer(max_epochs=1)
    run.fit(task, data)
    counts = task._after_training.buffers["corrector.count"]
    assert counts.any()
    assert torch.equal(task.network.corrector.count, counts)
    task.eval()
    assert not task.model.corrector.training
    task.train()
    assert task.model.corrector.training
    assert not task.model.memory.training


def pretrained(folder, data, **options):
    task, data = build_links(data=data, **options)
    run = trainer(max_epochs=1, limit_val_batches=1)
    run.fit(task, data)
    run.save_checkpoint(folder / "links.ckpt")
    return task, str(folder / "links.ckpt")


def test_weights_come_from_link_prediction(tmp_path):
    data = changes()
    links, path = pretrained(tmp_path, data)
    task, data = build(data=data, checkpoint=path)
    for name, value in links.model.named_parameters():
        assert torch.equal(value, dict(task.model.named_parameters())[name])
    run = trainer(max_epochs=1)
    run.fit(task, data)
    expected = run.test(task, data, verbose=False)
    run.save_checkpoint(tmp_path / "nodes.ckpt")
    torch.load(tmp_path / "nodes.ckpt", weights_only=True)
    (tmp_path / "links.ckpt").unlink()  # no longer needed
    again = graphseq.load(tmp_path / "nodes.ckpt")
    assert same(again.state_dict(), task.state_dict())
    assert trainer().test(again, data, verbose=False) == expected
    fresh, _ = build(data=data, checkpoint=path)
    trainer(max_epochs=2).fit(fresh, data, ckpt_path=tmp_path / "nodes.ckpt")
    fresh, _ = build(data=data, checkpoint=path)
    with pytest.raises(CheckpointError, match=r"no checkpoint .*links\.ckpt"):
        trainer(max_epochs=2).fit(fresh, data)


def test_wrong_checkpoints(tmp_path):
    data = changes()
    _, path = pretrained(tmp_path, data)
    with pytest.raises(CheckpointError, match=r"links\.ckpt .*JODIE"):
        build("jodie", data, checkpoint=path)
    with pytest.raises(CheckpointError, match=r"links\.ckpt .*TGN"):
        build("tgn", changes(num_sources=81), checkpoint=path)
    (tmp_path / "b.ckpt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"b\.ckpt cannot"):
        build("tgn", data, checkpoint=str(tmp_path / "b.ckpt"))


@pytest.mark.parametrize("step", [3, 14, 20])
def test_resume_equals_the_uninterrupted_run(step, tmp_path):
    expected, data = build()
    trainer(max_epochs=2).fit(expected, data)
    task, data = build()
    with pytest.raises(Interrupted):
        trainer(max_epochs=2, callbacks=[SaveAndStop(step, tmp_path / "k.ckpt")]).fit(task, data)
    task, data = build()
    torch.rand(9)
    trainer(max_epochs=2).fit(task, data, ckpt_path=tmp_path / "k.ckpt")
    assert same(task.state_dict(), expected.state_dict())


# what is refused


def test_one_class_in_a_split():
    def without(split):
        stream = changes().events
        data = TemporalDataModule(stream, batch_size=70, eval_batch_size=60)
        stream.y[data.splits[split]] = 0
        return data

    for split, call in (("train", "fit"), ("val", "fit"), ("val", "validate"), ("test", "test")):
        task, data = build(data=without(split))
        with pytest.raises(DataError, match=rf"\d+ events .*{split} .*label 0, .*AUC and AP"):
            getattr(trainer(), call)(task, data)
    task, data = build(data=without("test"))
    trainer(max_epochs=1, limit_train_batches=1).fit(task, data)


def test_few_batches_may_have_one_class():
    task, data = build()
    with pytest.warns(UserWarning, match="MaskedAUROC is NaN: .*1 labels"):
        trainer(max_epochs=1, limit_val_batches=1, limit_train_batches=1, num_sanity_val_steps=0).fit(
            task, _rare(task, data)
        )
    task, data = build()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(max_epochs=0, num_sanity_val_steps=1).fit(task, _rare(task, data))
    assert not [warning for warning in caught if "is NaN" in str(warning.message)]


def _rare(task, data):
    """The same stream with one state change in validation, the last event."""
    stream = data.events
    index = data.splits["val"]
    stream.y[index[:-1]] = 0
    stream.y[index[-1]] = 1
    return TemporalDataModule(stream, batch_size=70, eval_batch_size=60)


def test_streams_without_labels():
    task, data = build(data=events())
    with pytest.raises(DataError, match="events .*labels y"):
        trainer(max_epochs=1).fit(task, data)
    with pytest.raises(DataError, match="batch .*labels y"):
        task.step(next(data.batches("train")))
    other = changes()
    other.events.y[3] = 2
    task, data = build(data=other)
    with pytest.raises(DataError, match="labels of the train split .*0 or 1"):
        trainer(max_epochs=1).fit(task, data)
    trainer().predict(build(data=(plain := events()))[0], plain)


def test_wrong_arguments():
    data = changes()
    with pytest.raises(TypeError, match="EdgeBank has no decoded"):
        TemporalNodeClassification(EdgeBank())
    for weight in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"pos_weight is {weight}"):
            build(data=data, pos_weight=weight)
    with pytest.raises(ValueError, match="dropout is 1.0"):
        build(data=data, dropout=1.0)
    net = network("tgn", data)
    net.embedding.out_channels = None
    with pytest.raises(TypeError, match=r"TGN .*model\.embedding\.out_channels"):
        TemporalNodeClassification(net)
    own = TemporalNodeClassification(net, decoder=NodeDecoder(8, hidden_channels=[]))
    assert own.step(next(data.batches("train"))).prediction.shape == (70, 1)


# the decoder


def test_the_decoder_is_the_perceptron_it_says():
    decoder = NodeDecoder(6, 3, dropout=0.5).double().eval()
    assert [tuple(layer.weight.shape) for layer in decoder.layers if isinstance(layer, nn.Linear)] == [
        (80, 6),
        (10, 80),
        (3, 10),
    ]
    h = torch.randn(4, 6, dtype=torch.float64)
    w = dict(decoder.state_dict())
    expected = []
    for row in h:
        for layer in (0, 3, 6):
            row = w[f"layers.{layer}.weight"] @ row + w[f"layers.{layer}.bias"]
            row = row.clamp(min=0) if layer < 6 else row
        expected.append(row)
    torch.testing.assert_close(decoder(h), torch.stack(expected))
    decoder.train()
    assert not torch.equal(decoder(h), decoder(h))
    before = {name: value.clone() for name, value in w.items()}
    decoder.reset_parameters()
    assert not any(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())


@pytest.mark.parametrize(
    "options", [{"in_channels": 0}, {"out_channels": 0}, {"hidden_channels": [4, 0]}, {"dropout": 1.0}, {"dropout": -1}]
)
def test_wrong_decoders(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} "):
        NodeDecoder(**{"in_channels": 4, **options})


# labels that do not change


@pytest.mark.parametrize("kind", ["tgn", "jodie", "dyrep", "pres"])
def test_static_embeddings_are_those_after_the_stream(kind):
    data = changes()
    net = network(kind, data)
    net.train()
    net.decoder.eval()
    first = next(data.batches("train"))
    net.commit(net.forward_with_update(first)[1])
    before = net.state_buffers()
    nodes = torch.tensor([3, 0, 3, 17, data.num_nodes - 1])
    whole = static_node_embeddings(net, data.batches("train"), nodes)
    assert same(net.state_buffers(), before)
    assert net.training
    assert not net.decoder.training
    torch.testing.assert_close(static_node_embeddings(net, data.batches("train"), nodes, chunk=2), whole)
    assert torch.equal(whole[0], whole[2])
    # an event that comes next, and asks for the same node, meets the same embedding
    net.eval()
    net.reset_state()
    if kind == "pres":  # its moments go on as in training
        net.corrector.train()
    for last in data.batches("train"):
        net.commit(net.encode(last))
    if kind == "pres":
        net.corrector.eval()
        assert net.corrector.count.sum() > 0
    count, t = len(data.splits["train"]), last.t[-1:]
    three = torch.tensor([3])
    asked = EventBatch(three, three + 1, t, last.msg[:1], t * 0 + count, start=count, history=last.history)
    update = net.encode(asked)
    torch.testing.assert_close(net.decoded(update)[update.plan.row[:1]], whole[:1])
    with pytest.raises(DataError, match="batches is empty"):
        static_node_embeddings(net, [], nodes)


@pytest.mark.parametrize("name", ["school", "bitcoin"])
def test_static_embeddings_tell_labels_of_real_nodes(name, mirror):
    """Classes of pupils, and who is trusted, from a network that was never trained: the contacts alone."""
    whole = {"val_fraction": 0, "test_fraction": 0}
    data = PrimarySchoolDataModule(max_events=10_000, **whole) if name == "school" else BitcoinDataModule(**whole)
    nodes = (data.node_labels >= 0).nonzero().squeeze(1)
    labels = data.node_labels[nodes].numpy()
    torch.manual_seed(0)
    net = TGN(data.num_nodes, data.num_edge_features, memory_dim=32, time_dim=32, embedding_dim=32)
    h = static_node_embeddings(net, data.batches("train"), nodes).numpy()
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    accuracy = cross_val_score(classifier, h, labels, cv=5).mean()
    assert accuracy > np.bincount(labels).max() / len(labels) + 0.05


def test_static_embeddings_after_batches_out_of_order_are_at_the_end_of_the_stream():
    data = events(num_events=200, batching=TBatches())
    net = network("jodie", data).eval()
    for last in data.batches("train"):
        net.commit(net.encode(last))
    count, nodes = len(data.splits["train"]), torch.tensor([0, 1])
    assert int(last.e_id[-1]) + 1 < count
    end = data.events[:count]
    t, place = end.t[-1:].expand(2), torch.full_like(nodes, count)
    asked = EventBatch(nodes, nodes, t, end.msg[:2], place, start=count, history=last.history)
    update = net.encode(asked)
    found = static_node_embeddings(net, data.batches("train"), nodes)
    torch.testing.assert_close(found, net.decoded(update)[update.plan.row[:2]].detach())
