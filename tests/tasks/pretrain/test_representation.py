"""Representation learning: what the loss is made of, images and graphs alike, its probes, and how it goes on."""

import functools

import lightning
import pytest
import torch
from torch import nn
from torch_geometric.data import Data

import graphseq
from graphseq.callbacks import LinearProbe
from graphseq.core import DataError
from graphseq.data import GraphDataModule, ImageDataModule, RandomCrop, ToFloat
from graphseq.metrics import effective_rank, linear_probe
from graphseq.models import MLP, GraphEncoder, ProjectedClassifier, ProjectedNetwork
from graphseq.nn import FixedReweightingHead, NTXentLoss, Pretrained, ProjectionHead, SupervisedContrastiveLoss
from graphseq.tasks import Classification, GraphContrast, RepresentationLearning
from tests.reliability.runs import trainer, weights

SGD = functools.partial(torch.optim.SGD, lr=0.1)
PARITY = [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


def network(seed=0):
    torch.manual_seed(seed)
    return ProjectedNetwork(MLP(64, 10, 16), ProjectionHead(16, out_features=8))


def contrast(**options):
    return RepresentationLearning(
        network(), NTXentLoss(), views=[RandomCrop(1), RandomCrop(1)], optimizer=SGD, **options
    )


def graphs(count=12):
    made = []
    for number in range(count):
        nodes = 3 + number % 3
        order = torch.arange(nodes)
        edges = torch.stack([order, (order + 1) % nodes])
        made.append(Data(x=torch.randn(nodes, 2) + number % 2, edge_index=edges, y=torch.tensor([number % 2])))
    return GraphDataModule(made, batch_size=6, fractions=(0.5, 0.25, 0.25))


def test_loss_is_that_of_the_projections_of_all_views():
    shift = nn.Linear(3, 3)
    model = nn.Linear(3, 2)
    task = RepresentationLearning(model, NTXentLoss(), views=[nn.Identity(), shift])
    x, y = torch.randn(5, 3), torch.tensor([0, 0, 1, 1, 1])
    assert torch.allclose(task.step((x, y)).loss, NTXentLoss()(torch.stack([model(x), model(shift(x))])))
    plain = RepresentationLearning(model, SupervisedContrastiveLoss())
    assert torch.equal(plain.step((x, y)).loss, SupervisedContrastiveLoss()(model(x)[None], y))


def test_evaluation_makes_the_same_views_each_time_and_training_does_not():
    task, x = contrast(), torch.randn(6, 1, 8, 8)
    assert task.step((x, None), "val").loss == task.step((x, None), "val").loss
    assert task.step((x, None)).loss != task.step((x, None)).loss


def test_stopped_run_goes_on_bit_for_bit_and_a_classifier_takes_the_network(tmp_path):
    def data():
        return ImageDataModule("digits", batch_size=64, eval_batch_size=512)

    limits = {"limit_train_batches": 3, "limit_val_batches": 1}
    whole = contrast()
    trainer(max_epochs=2, **limits).fit(whole, data())
    half = contrast()
    run = trainer(max_epochs=1, **limits)
    run.fit(half, data())
    run.save_checkpoint(tmp_path / "half.ckpt")
    rest = contrast()
    trainer(max_epochs=2, **limits).fit(rest, data(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(rest).items())
    again = graphseq.load(tmp_path / "half.ckpt")
    assert all(torch.equal(value, weights(half)[name]) for name, value in weights(again).items())
    taken = Pretrained(tmp_path / "half.ckpt", part="model.network")
    probe = ProjectedClassifier(taken, FixedReweightingHead(16, ratio=1.0), 10)
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(probe.encode(x), half.model.encode(x))


def test_probe_reads_both_sides_of_the_head_and_the_fine_classes():
    data = ImageDataModule("digits", batch_size=256, class_groups=PARITY)
    torch.manual_seed(0)
    task = Classification(ProjectedClassifier(MLP(64, 2, 16), ProjectionHead(16, out_features=4), 2), 2, optimizer=SGD)
    probe = LinearProbe(num_train=300, every_n_epochs=2)
    run = trainer(max_epochs=2, limit_train_batches=2, callbacks=[probe])
    run.fit(task, data)
    assert "val/probe_before_acc" in run.callback_metrics
    found = run.test(task, data, verbose=False)[0]
    task.eval()
    sides = {split: probe.features(task, data, split) for split in ("train", "test")}
    positions = data.splits["test"]
    images = data.eval_transform(data.store.take(positions)[0])
    assert torch.allclose(sides["test"]["before"], task.model.encode(images))
    assert torch.equal(sides["test"]["labels"], data.fine_labels[positions])
    assert len(sides["train"]["labels"]) == 300
    assert len(sides["test"]["labels"].unique()) == 10
    for side in ("before", "after"):
        pair = [(features[side], features["labels"]) for features in (sides["train"], sides["test"])]
        assert found[f"test/probe_{side}_acc"] == pytest.approx(linear_probe(*pair[0], *pair[1]))
        assert found[f"test/rank_{side}"] == pytest.approx(float(effective_rank(pair[1][0])), rel=1e-5)


def test_probe_reads_what_layers_after_it_write_into():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(inplace=True), nn.Linear(8, 10))
    data, task = ImageDataModule("digits"), Classification(network, 10)
    linear, relu = (LinearProbe(f"model.{number}").features(task, data, "test") for number in (1, 2))
    assert bool((linear["after"] < 0).any())
    assert torch.equal(linear["after"], relu["before"])
    assert torch.equal(relu["before"].clamp(min=0), relu["after"])


def test_graphs_with_every_loss():
    module = graphs()
    batch = next(module.batches("train"))
    encoder = GraphEncoder(2, 8, 1)
    head = FixedReweightingHead(8)
    classifier = Classification(ProjectedClassifier(encoder, head, 2), 2).eval()
    logits = classifier.model.head(head(encoder(batch.x, batch.edge_index, batch.batch)))
    assert torch.allclose(classifier.step(batch).prediction, logits, atol=1e-6)
    supervised = RepresentationLearning(ProjectedNetwork(encoder, head), SupervisedContrastiveLoss()).eval()
    z = head(encoder(batch.x, batch.edge_index, batch.batch))
    assert torch.allclose(supervised.step(batch).loss, SupervisedContrastiveLoss()(z[None], batch.y), atol=1e-6)
    views = GraphContrast(encoder, projection=head, loss=NTXentLoss(0.2)).eval()
    step = views.step(batch, "val")
    assert torch.allclose(step.loss, NTXentLoss(0.2)(torch.stack([step.prediction, step.target])))
    probe = LinearProbe("projection")  # the forward pass of GraphContrast ends before it
    sides = probe.features(views, module, "train")
    assert torch.allclose(sides["after"], head(sides["before"]))
    assert sides["before"].shape == (6, 8)


def test_groups_of_classes_leave_the_splits_as_they_are():
    plain, grouped = ImageDataModule("digits"), ImageDataModule("digits", class_groups=PARITY)
    assert grouped.num_outputs == 2
    assert all(torch.equal(grouped.splits[name], plain.splits[name]) for name in plain.splits)
    labels = grouped.store.take(torch.arange(20))[1]
    assert torch.equal(labels, plain.store.take(torch.arange(20))[1] % 2)
    assert torch.equal(grouped.fine_labels, plain.fine_labels)


def test_refusals():
    with pytest.raises(ValueError, match="given 1 view"):
        RepresentationLearning(network(), NTXentLoss())
    with pytest.raises(TypeError, match="loss is a CrossEntropyLoss"):
        RepresentationLearning(network(), nn.CrossEntropyLoss())
    with pytest.raises(ValueError, match=r"returned \(4, 2, 3\)"):
        RepresentationLearning(nn.Identity(), SupervisedContrastiveLoss()).step((torch.ones(4, 2, 3), torch.ones(4)))
    with pytest.raises(ValueError, match=r"Identity returned \(8, 2, 3\)"):
        RepresentationLearning(nn.Identity(), NTXentLoss(), views=[nn.Identity()] * 2).step((torch.ones(4, 2, 3),))
    with pytest.raises(DataError, match="without a target"):
        RepresentationLearning(nn.Linear(2, 2), SupervisedContrastiveLoss()).step((torch.ones(3, 2),))
    with pytest.raises(DataError, match=r"views are to be made of a .*Batch"):
        RepresentationLearning(GraphEncoder(2, 8), NTXentLoss(), views=[ToFloat(), ToFloat()]).step(
            next(graphs().batches("train"))
        )
    with pytest.raises(ValueError, match="SupervisedContrastiveLoss, which reads labels"):
        GraphContrast(GraphEncoder(2, 8), loss=SupervisedContrastiveLoss())
    with pytest.raises(ValueError, match=r"class_groups is \[\[0, 1\], \[1, 2\]\]"):
        ImageDataModule("digits", class_groups=[[0, 1], [1, 2]])
    with pytest.raises(ValueError, match="every_n_epochs is 0"):
        LinearProbe(every_n_epochs=0)
    with pytest.raises(ValueError, match="inverse_penalty is 0"):
        LinearProbe(inverse_penalty=0)
    task = contrast()
    run = lightning.Trainer(logger=False, enable_checkpointing=False)
    with pytest.raises(DataError, match=r"layer='model.head'.*model.projection"):
        LinearProbe("model.head").setup(run, task, "test")
    with pytest.raises(DataError, match="needs a data module"):
        LinearProbe().setup(run, task, "test")
