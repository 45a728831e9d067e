"""Projection heads: their formula, what a fixed head does to gradients, and the law of layers of a linear network."""

import copy

import pytest
import torch
from torch import nn

from graphseq.core import DataError, make
from graphseq.metrics import effective_rank
from graphseq.models import MLP, ConvNet, GraphEncoder, ProjectedClassifier, ProjectedNetwork
from graphseq.nn import (
    ContrastiveLoss,
    FixedReweightingHead,
    NTXentLoss,
    ProjectionHead,
    SpectralContrastiveLoss,
    SupervisedContrastiveLoss,
)
from graphseq.ops import nt_xent_loss, supervised_contrastive_loss


def test_maps_of_a_head():
    head = ProjectionHead(4, hidden_features=5, out_features=3, num_layers=3).double()
    z = torch.randn(2, 4, dtype=torch.float64)
    expected = z
    for number in range(3):
        weight, bias = head.state_dict()[f"layers.{number}.weight"], head.state_dict()[f"layers.{number}.bias"]
        expected = torch.stack([weight @ row + bias for row in expected])
        expected = expected.clamp(min=0) if number < 2 else expected
    assert torch.allclose(head(z), expected)
    linear = ProjectionHead(4, num_layers=1, bias=False)
    assert torch.equal(linear(z.float()), z.float() @ linear.layers[0].weight.T)


def test_fixed_head_scales_the_gradient_of_each_coordinate():
    head = FixedReweightingHead(5, ratio=1.5).double()
    z = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    head(z).sum().backward()
    expected = torch.tensor([1.5**-i for i in range(5)], dtype=torch.float64)
    assert torch.allclose(z.grad, expected.expand(3, -1), rtol=1e-6)
    assert not list(head.parameters())
    assert list(head.state_dict()) == ["factor"]


def test_fixed_head_of_ratio_one_is_no_head_and_small_factors_have_a_floor():
    z = torch.randn(2, 6)
    assert torch.equal(FixedReweightingHead(6, ratio=1.0)(z), z)
    head = FixedReweightingHead(2048, ratio=1.5)
    head.load_state_dict(copy.deepcopy(head).half().state_dict())  # factors that have lost digits are no other ones
    factor = FixedReweightingHead(2048, ratio=1.5).factor
    assert factor[0] == 1
    assert factor.min() == torch.finfo(torch.float32).tiny
    assert bool((factor[:-1] >= factor[1:]).all())


def test_deeper_layer_of_a_linear_network_weighs_features_as_the_square():
    """Descent keeps W1 W1' - W2' W2 at 0, so that a singular value of W1 is the root of that of W2 W1."""
    torch.manual_seed(0)
    encoder = MLP(6, 2, hidden_features=3, activation=make(nn.Identity))
    encoder.hidden[0][0].bias = None
    network = ProjectedNetwork(encoder, ProjectionHead(3, num_layers=1, bias=False)).double()
    first, second = encoder.hidden[0][0].weight, network.projection.layers[0].weight
    for weight in (first, second):
        nn.init.orthogonal_(weight, gain=0.4)
    scale = torch.tensor([1.5, 1.2, 1.0, 0.1, 0.1, 0.1], dtype=torch.float64)
    signal = torch.randn(64, 6, dtype=torch.float64) * scale
    views = torch.stack([signal + 0.3 * torch.randn_like(signal) for _ in range(2)])
    loss, optimizer = SpectralContrastiveLoss(), torch.optim.SGD([first, second], lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        loss(network(views.flatten(0, 1)).unflatten(0, (2, -1))).backward()
        # steps that are infinitely small conserve it
        torch.testing.assert_close(first.grad @ first.T, second.T @ second.grad, rtol=1e-9, atol=1e-12)
        optimizer.step()
    conserved = (first @ first.T - second.T @ second).detach()
    before, after = torch.linalg.svdvals(first.detach()), torch.linalg.svdvals((second @ first).detach())
    assert after[0] > 1.2 * after[2]  # features are weighted unequally
    assert conserved.abs().max() < 0.02 * before[0] ** 2  # by steps that are not infinitely small
    assert torch.allclose(before.square(), after, rtol=0.02)


def test_features_before_a_trained_head_fill_more_directions_than_those_after_it():
    torch.manual_seed(0)
    network, x = ProjectedClassifier(MLP(6, 2, 16), ProjectionHead(16), 2), torch.randn(128, 6)
    y = (x[:, 0] > 0).long()

    def ranks():
        with torch.no_grad():
            return [effective_rank(z) for z in (network.encode(x), network.projection(network.encode(x)))]

    begun, optimizer = ranks(), torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    before, after = ranks()
    assert before > 1.5 * after
    assert after < 0.7 * begun[1]  # by training, not from the beginning


def test_minimum_of_the_spectral_loss_of_a_linear_network():
    """The loss is a distance of matrices; its minimum takes the directions in which two views agree most."""
    torch.manual_seed(0)
    signal = torch.randn(200, 4, dtype=torch.float64) * torch.tensor([1.5, 1.2, 0.8, 0.5], dtype=torch.float64)
    first, second = (signal + 0.4 * torch.randn_like(signal) for _ in range(2))
    pairs = torch.stack([torch.cat([first, second]), torch.cat([second, first])])  # symmetric
    network = nn.Sequential(*(ProjectionHead(*sizes, num_layers=1, bias=False) for sizes in ((4, 4, 3), (3, 3, 2))))
    network.double()
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        """The loss with the pairs of a sample with itself, which it leaves out: then it is exact in these matrices."""
        optimizer.zero_grad()
        z = network(pairs.flatten(0, 1)).unflatten(0, (2, -1))
        own = (z[0] * z[1]).sum(1)
        others = SpectralContrastiveLoss()(z) + 2 * own.mean()
        value = others * 399 / 400 + own.square().mean() / 400 - 2 * own.mean()
        value.backward()
        return value

    covariance, across = pairs[0].T @ pairs[0] / 400, pairs[0].T @ pairs[1] / 400
    values, vectors = torch.linalg.eigh(covariance)
    root, whitening = (vectors @ torch.diag(scale) @ vectors.T for scale in (values.sqrt(), values.rsqrt()))
    agreement = whitening @ across @ whitening

    def product():
        maps = (network[1].layers[0].weight @ network[0].layers[0].weight).detach()
        return maps.T @ maps

    distance = (root @ product() @ root - agreement).square().sum() - agreement.square().sum()
    torch.testing.assert_close(loss().detach(), distance)
    optimizer.step(loss)
    shares, directions = torch.linalg.eigh(agreement)
    largest = directions[:, 2:] @ torch.diag(shares[2:]) @ directions[:, 2:].T
    torch.testing.assert_close(product(), whitening @ largest @ whitening, rtol=0, atol=1e-3)


@pytest.mark.parametrize("network", [lambda: MLP(12, 2, 8), lambda: ConvNet(3, 2, 8, 1)], ids=["mlp", "convolutions"])
def test_networks_with_a_head(network):
    inner, x = network(), torch.randn(4, 3, 2, 2)
    head = ProjectionHead(8, out_features=5)
    projected = ProjectedNetwork(inner, head).eval()
    assert torch.equal(projected.encode(x), inner.encode(x))
    assert torch.equal(projected(x), head(inner.encode(x)))
    classifier = ProjectedClassifier(inner, head, 3).eval()
    assert torch.equal(classifier(x), classifier.head(head(inner.encode(x))))
    again = copy.deepcopy(classifier)
    again.load_state_dict(classifier.state_dict())
    assert torch.equal(again(x), classifier(x))


def test_losses_of_views():
    z, labels = torch.randn(2, 4, 3), torch.tensor([0, 1, 0, -1])
    assert torch.equal(NTXentLoss(0.3)(z), nt_xent_loss(z[0], z[1], 0.3))
    known = torch.tensor([0, 1, 0, 9])  # an unlabelled sample is a class of its own
    expected = supervised_contrastive_loss(z.flatten(0, 1), known.repeat(2), 0.5)
    assert torch.equal(SupervisedContrastiveLoss()(z, labels), expected)
    assert torch.equal(SupervisedContrastiveLoss()(z, torch.full((4,), -1)), NTXentLoss()(z))


def test_refusals():
    with pytest.raises(ValueError, match="num_layers is 0"):
        ProjectionHead(3, num_layers=0)
    with pytest.raises(ValueError, match=r"ratio is 0.5"):
        FixedReweightingHead(3, ratio=0.5)
    with pytest.raises(ValueError, match="in_features is 0"):
        FixedReweightingHead(0)
    for head in (ProjectionHead(3), FixedReweightingHead(3)):
        with pytest.raises(ValueError, match=r"\(2, 1\).*3 coordinates"):  # which would be repeated
            head(torch.ones(2, 1))
        with pytest.raises(TypeError, match="int64"):
            head(torch.ones(2, 3).long())
    with pytest.raises(RuntimeError, match="another ratio than 2.0: its second entry is 0.666., that of this head 0.5"):
        FixedReweightingHead(3, ratio=2.0).load_state_dict(FixedReweightingHead(3, ratio=1.5).half().state_dict())
    for loss in (NTXentLoss(), SpectralContrastiveLoss()):
        with pytest.raises(ValueError, match=r"z has shape \(2, 3\).*\(V, B, D\)"):
            loss(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"z has shape \(4, 3\).*z\[None\]"):
        SupervisedContrastiveLoss()(torch.ones(4, 3), torch.zeros(4).long())
    with pytest.raises(ValueError, match="temperature is -1"):
        NTXentLoss(-1)
    with pytest.raises(ValueError, match=r"given 1 view.*at least 2"):
        NTXentLoss()(torch.ones(1, 2, 2))
    with pytest.raises(ValueError, match=r"given 3 view.*needs 2"):
        SpectralContrastiveLoss()(torch.ones(3, 2, 2))
    with pytest.raises(DataError, match="labels are None for 2 samples"):
        SupervisedContrastiveLoss()(torch.ones(1, 2, 2))
    with pytest.raises(DataError, match=r"labels are torch.float32 \(2,\)"):
        SupervisedContrastiveLoss()(torch.ones(1, 2, 2), torch.ones(2))
    with pytest.raises(TypeError, match=r"must define forward\(z, labels\)"):
        ContrastiveLoss()(torch.ones(1, 2, 2))
    with pytest.raises(TypeError, match="Linear without encode"):
        ProjectedNetwork(nn.Linear(2, 2), ProjectionHead(2))
    with pytest.raises(TypeError, match="Identity without in_features"):
        ProjectedNetwork(MLP(2, 2), nn.Identity())
    with pytest.raises(ValueError, match="projection takes 5 features.*GraphEncoder has 8"):
        ProjectedNetwork(GraphEncoder(2, 8), ProjectionHead(5))
    with pytest.raises(ValueError, match="out_features is 0"):
        ProjectedClassifier(MLP(2, 2, 4), ProjectionHead(4), 0)
