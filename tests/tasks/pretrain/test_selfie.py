"""Selfie: the loss against loops, what can reach the queries, missing labels, and the patch network handed on."""

import functools
import math

import pytest
import torch
from torch import nn

from graphseq.core import DataError
from graphseq.data import ImageDataModule
from graphseq.models import MLP, ConvNet, ResNetClassifier, ResNetEncoder, SelfieNetwork
from graphseq.nn import AttentionPooling, Pretrained
from graphseq.ops import choose_patches
from graphseq.tasks import Classification, SelfiePretraining
from tests.reference import patches as reference
from tests.reliability.runs import trainer, weights

ADAM = functools.partial(torch.optim.Adam, lr=3e-3)


def network(norm="group", channels=3, side=8, grid=4, **options):
    torch.manual_seed(0)
    pooling = AttentionPooling(16, 1, 2, dropout=0.0)
    return SelfieNetwork(
        ResNetEncoder(channels, 8, (1, 1), norm=norm), (channels, side, side), grid, pooling, **options
    )


def images(count, side=8, dtype=torch.float32):
    return torch.randn(count, 3, side, side, dtype=dtype, generator=torch.Generator().manual_seed(1))


def test_loss_and_gradient_equal_loops():
    model = network().double()
    x, (masked, context) = images(2, dtype=torch.float64), choose_patches(2, 16, 3, "cpu")
    scores = model.scores(x, masked, context)
    found = nn.functional.cross_entropy(scores.flatten(0, 1), torch.arange(3).repeat(2))
    expected = reference.selection_loss(
        x, 4, lambda patch: model.network.encode(patch[None])[0], lambda h: model.pooling(h[None])[0],
        model.positions, masked, context,
    )  # fmt: skip
    assert torch.allclose(found, expected)
    parameters = list(model.parameters())
    pairs = zip(torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters), strict=True)
    assert all(torch.allclose(one, other, atol=1e-10) for one, other in pairs)


def summary_gradient(model, x, masked, context):
    """Gradient of a summary by the pixels of one masked and one context patch."""
    h = model.embed_patches(x)
    summary = model.summary(h[:, context[0]], context)
    gradient = torch.autograd.grad(summary.square().sum() + summary.sum(), x)[0]
    cut = reference.patches(gradient[0], 4, 4)
    return torch.stack([cut[place] for place in masked[0]]), torch.stack([cut[place] for place in context[0]])


def test_no_pixel_of_a_masked_patch_reaches_the_summary():
    x = images(1).requires_grad_()
    masked, context = choose_patches(1, 16, 4, "cpu")
    for model in (network("group"), network("batch").eval()):
        hidden, seen = summary_gradient(model, x, masked, context)
        assert not bool(hidden.any())
        assert bool(seen.flatten(1).any(1).all())
    hidden, _ = summary_gradient(network("batch"), x, masked, context)
    assert bool(hidden.any())  # by the statistics over the batch, as the docstring says


def test_summary_depends_on_where_the_context_lies_and_not_on_its_order():
    model = network()
    h, context = torch.randn(2, 5, 16), torch.tensor([[0, 3, 5, 9, 12], [1, 2, 3, 4, 5]])
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.allclose(model.summary(h[:, order], context[:, order]), model.summary(h, context), atol=1e-5)
    nn.init.normal_(model.position_parts[0])
    assert not torch.allclose(model.summary(h, context[:, order]), model.summary(h, context), atol=1e-2)
    blind = network(context_positions=False)
    nn.init.normal_(blind.position_parts[0])
    assert torch.equal(blind.summary(h, context[:, order]), blind.summary(h, context))


def test_positions_of_rows_and_columns():
    model = network(factorized_positions=True)
    rows, columns = (part.flatten(0, 1) for part in model.position_parts)
    expected = torch.stack([rows[place // 4] + columns[place % 4] for place in range(16)])
    assert torch.equal(model.positions, expected)


def test_fresh_parameters():
    model = network()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 7.0)
    model.reset_parameters()
    assert not any(bool((parameter == 7).all()) for parameter in model.parameters())


def test_loss_begins_near_guessing_and_equal_patches_bound_the_accuracy():
    task = SelfiePretraining(network(side=16))
    assert task.num_masked == 4
    assert task.step((images(64, 16),), "val").loss.item() == pytest.approx(math.log(4), abs=0.1)
    assert task.step((images(4, 16),), "val").logged["ceiling"] == 1
    assert task.step((torch.zeros(4, 3, 16, 16),), "val").logged["ceiling"] == 0.25
    half = images(1, 16)
    half[:, :, :, 8:] = 0  # two columns of blank patches
    blank = task.step((half,), "val")
    generator = torch.Generator().manual_seed(0)
    count = int((choose_patches(1, 16, 4, "cpu", generator)[0] % 4 >= 2).sum())
    assert blank.logged["ceiling"].item() == pytest.approx((4 - count + min(count, 1)) / 4)


def test_evaluation_masks_the_same_patches_and_labels_are_not_read():
    task, x = SelfiePretraining(network()), images(8)
    losses = [task.step(batch, "val").loss for batch in ((x, None), (x,), x, (x, torch.full((8,), float("nan"))))]
    assert len({float(loss.detach()) for loss in losses}) == 1
    assert task.step(x).loss != task.step(x).loss


@pytest.mark.slow
def test_few_images_are_learned_by_heart():
    task, x = SelfiePretraining(network(side=16)), images(8, 16)
    optimizer = ADAM(task.parameters())
    for _ in range(150):
        optimizer.zero_grad()
        task.step((x,), "val").loss.backward()
        optimizer.step()
    assert task.step((x,), "val").logged["acc"] > 0.95


def test_patch_network_goes_on_in_a_classifier(tmp_path):
    def data(**options):
        return ImageDataModule("digits", batch_size=64, eval_batch_size=512, **options)

    limits = {"limit_train_batches": 2, "limit_val_batches": 1}
    whole = SelfiePretraining(network(channels=1), optimizer=ADAM)
    trainer(max_epochs=2, **limits).fit(whole, data())
    half = SelfiePretraining(network(channels=1), optimizer=ADAM)
    run = trainer(max_epochs=1, **limits)
    run.fit(half, data())
    run.save_checkpoint(tmp_path / "half.ckpt")
    rest = SelfiePretraining(network(channels=1), optimizer=ADAM)
    trainer(max_epochs=2, **limits).fit(rest, data(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(rest).items())
    stages = Pretrained(tmp_path / "half.ckpt", part="model.network", freeze=False)
    later = Classification(ResNetClassifier(stages, 10), 10, optimizer=ADAM)
    taken = later.model.network.module.state_dict()
    assert all(torch.equal(value, weights(half)[f"model.network.{name}"]) for name, value in taken.items())
    assert later.model(torch.randn(3, 1, 8, 8)).shape == (3, 10)
    before = {name: value.clone() for name, value in taken.items()}
    few = data(num_shots=50)
    trainer(max_epochs=1, **limits).fit(later, few)
    assert len(few.splits["train"]) == 50
    assert any(not torch.equal(value, before[name]) for name, value in later.model.network.module.state_dict().items())


def test_few_labelled_images():
    few, more, every = (ImageDataModule("digits", **shots) for shots in ({"num_shots": 60}, {"num_shots": 200}, {}))
    assert len(few.splits["train"]) == 60
    assert set(few.splits["train"].tolist()) < set(more.splits["train"].tolist()) < set(every.splits["train"].tolist())
    assert torch.equal(few.splits["test"], every.splits["test"])
    each = ImageDataModule("digits", shots_per_class=3)
    assert each.fine_labels[each.splits["train"]].bincount().tolist() == [3] * 10


def test_refusals():
    with pytest.raises(ValueError, match="patch_grid is 3, which does not divide images of 8 x 8"):
        network(grid=3)
    with pytest.raises(ValueError, match=r"shape \(1, 3, 9, 9\); \(B, 3, 8, 8\)"):
        network().scores(images(1, 9), *choose_patches(1, 16, 4, "cpu"))
    with pytest.raises(TypeError, match="Linear without encode"):
        SelfieNetwork(nn.Linear(2, 2), (1, 8, 8))
    with pytest.raises(ValueError, match=r"in_shape is \(8, 8\)"):
        SelfieNetwork(ConvNet(1, 2), (8, 8))
    with pytest.raises(TypeError, match="MLP without num_patches, patch_grid, scores"):
        SelfiePretraining(MLP(4, 2))
    with pytest.raises(ValueError, match="mask_share is 1.0"):
        SelfiePretraining(network(), mask_share=1.0)
    with pytest.raises(ValueError, match="1 of 4 patches; at least two"):
        SelfiePretraining(network(grid=2))
    with pytest.raises(DataError, match=r"batch holds \(2, 8\)"):
        SelfiePretraining(network()).step((torch.ones(2, 8),))
    with pytest.raises(ValueError, match="pooling has dim=8.*ResNetEncoder have 16"):
        SelfieNetwork(ResNetEncoder(3, 8, (1, 1)), (3, 8, 8), pooling=AttentionPooling(8))
    with pytest.raises(TypeError, match="int64"):
        AttentionPooling(16)(torch.ones(2, 3, 16).long())
    with pytest.raises(ValueError, match="num_heads is 3"):
        AttentionPooling(16, num_heads=3)
    with pytest.raises(ValueError, match=r"shape \(2, 16\)"):
        AttentionPooling(16)(torch.ones(2, 16))
    with pytest.raises(ValueError, match="num_shots is 5 and shots_per_class is 2"):
        ImageDataModule("digits", num_shots=5, shots_per_class=2)
    with pytest.raises(ValueError, match="shots_per_class is 0"):
        ImageDataModule("digits", shots_per_class=0)
    with pytest.raises(DataError, match=r"class \d has none of the 12 shots"):
        ImageDataModule("digits", num_shots=12).load()
