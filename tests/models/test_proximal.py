"""Learned proximal networks: exact proximal operators, their inverse and prior, in every mode."""

import functools
import math

import lightning
import pytest
import torch
from torch import nn

import graphseq
from graphseq.bench import load_experiment
from graphseq.callbacks import ProximalAnnealing
from graphseq.core import Recorded, make
from graphseq.data import DenoisingImagesDataModule, LaplaceDenoisingDataModule
from graphseq.models import LearnedProximal
from graphseq.nn import InputConvexConvNet, InputConvexNetwork, ProximalMatchingLoss
from graphseq.tasks import Regression
from tests.reliability.runs import trainer


class Quadratic(Recorded, nn.Module):
    """scale / 2 |y|^2, whose gradient is linear."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, y):
        return 0.5 * self.scale * y.flatten(1).square().sum(1)


def network(dim=2, alpha=0.05, seed=0, trained=True):
    """A small network in float64 after a few steps as a denoiser of Laplace numbers."""
    torch.manual_seed(seed)
    made = LearnedProximal(InputConvexNetwork(dim, 8, num_layers=2, beta=4.0), alpha=alpha).double()
    if trained:
        optimizer = torch.optim.Adam(made.parameters(), 0.02)
        clean = torch.distributions.Laplace(0.0, 1.0).sample((200, dim)).double()
        noisy = clean + torch.randn_like(clean)
        for _ in range(15):
            optimizer.zero_grad()
            (made(noisy) - clean).abs().mean().backward()
            optimizer.step()
        made.lowest.fill_(-math.inf)  # the range is not what these tests are about
        made.highest.fill_(math.inf)
    return made.eval()


@pytest.fixture(scope="module")
def trained():
    return network()


def points(count, dim=2, seed=1, scale=2.0):
    return scale * torch.randn(count, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def jacobians(f, y):
    return torch.stack([torch.autograd.functional.jacobian(lambda x: f(x[None])[0], row) for row in y])


@pytest.mark.parametrize("before", [True, False])
def test_jacobian_is_symmetric_and_strongly_positive(before):
    """Acceptance 1."""
    f = network(3, alpha=0.05, trained=not before)
    found = jacobians(f, points(8, 3))
    torch.testing.assert_close(found, found.mT, atol=1e-10, rtol=0)
    eigenvalues = torch.linalg.eigvalsh(found)
    assert eigenvalues.min() >= 2 * 0.05 - 1e-8


def test_convex_and_monotone(trained):
    """Acceptance 2."""
    first, second, t = points(10_000), points(10_000, seed=2), torch.rand(10_000, dtype=torch.float64)
    with torch.no_grad():
        between = trained.value(t[:, None] * first + (1 - t[:, None]) * second)
        assert bool((between <= t * trained.value(first) + (1 - t) * trained.value(second) + 1e-9).all())
    assert bool((((trained(first) - trained(second)) * (first - second)).sum(1) >= 0).all())


def test_exact_proximal_operator_of_the_prior():
    """Acceptance 3, in one dimension: y -> argmin over a grid of (u - y)^2 / 2 + R(u), R by inversion."""
    f = network(1)
    grid = torch.linspace(-3, 3, 1201, dtype=torch.float64)[:, None]
    y = torch.linspace(-4, 4, 41, dtype=torch.float64)[:, None]
    x = f(y)
    assert float(x.detach().abs().max()) < 3
    best = grid[(0.5 * (grid.T - y).square() + f.prior(grid)).argmin(1)]
    torch.testing.assert_close(best, x, atol=0.0051, rtol=0)


def test_exact_proximal_operator_in_two_dimensions(trained):
    """The same in the plane: the grid is one of points f(w), whose prior needs no inversion."""
    line = torch.linspace(-4, 4, 81, dtype=torch.float64)
    w = torch.cartesian_prod(line, line)
    candidates = trained(w)
    with torch.no_grad():
        prior = (candidates * w).sum(1) - 0.5 * candidates.square().sum(1) - trained.value(w)
    y = points(20, scale=1.0)
    best = (0.5 * (candidates - y[:, None]).square().sum(2) + prior).argmin(1)
    assert (w[best] - y).abs().max() <= 0.1 + 1e-9  # next to y on the grid of w
    torch.testing.assert_close(trained.prior(candidates[::500]), prior[::500], atol=1e-6, rtol=0)


def test_inversion(trained):
    """Acceptance 4."""
    x = points(50)
    assert float((trained(trained.invert(x)) - x).abs().max()) < 1e-6
    single = trained.float()
    assert float((single(single.invert(x.float())) - x.float()).abs().max()) < 1e-4
    assert single.invert(x.float()).dtype == torch.float32
    trained.double()


def test_prior_of_known_functions():
    x = points(6, 3).view(6, 1, 3)
    assert LearnedProximal(Quadratic(1.0)).prior(x).abs().max() < 1e-10
    expected = 0.7 / 2 * x.flatten(1).square().sum(1)
    torch.testing.assert_close(LearnedProximal(Quadratic(1 / 1.7)).prior(x), expected, atol=1e-8, rtol=0)
    # alpha counts twice: psi = |y|^2 / 4 + alpha |y|^2 with alpha = 1 / 4 is that of the identity
    assert LearnedProximal(Quadratic(0.5), alpha=0.25).prior(x).abs().max() < 1e-8


def test_every_mode_gives_the_same_gradient():
    f, y = network(), points(5)
    expected = f(y)
    with torch.no_grad():
        without = f(y)
    with torch.inference_mode():
        inside = torch.zeros_like(y) + y
        inferred = f(inside), f(inside.float())
        inverse = f.invert(expected.detach()), f.prior(torch.zeros_like(y))
    assert torch.equal(without, expected)
    assert not without.requires_grad
    assert torch.equal(inferred[0], expected)
    assert inferred[1].dtype == torch.float32
    torch.testing.assert_close(inverse[0], y, atol=1e-4, rtol=0)
    assert not y.requires_grad  # the caller's tensor is as before
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(f(y), expected)


def test_gradients_of_the_gradient():
    f, y = network(), points(3).requires_grad_()
    assert torch.autograd.gradcheck(f, y)
    image = LearnedProximal(InputConvexConvNet(1, (3, 3), 2, strides=(1, 2), features=2)).double()
    assert torch.autograd.gradcheck(image, torch.randn(2, 1, 3, 3, dtype=torch.float64, requires_grad=True))
    f(y).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in f.potential.hidden.parameters())


def test_lightning_validates_tests_and_predicts(tmp_path):
    lightning.seed_everything(0, verbose=False)
    data = LaplaceDenoisingDataModule(num_train=64, num_val=8, num_test=8, batch_size=16, eval_batch_size=8)
    task = Regression(
        LearnedProximal(InputConvexNetwork(1, 4, num_layers=2)),
        loss=make(nn.L1Loss),
        optimizer=functools.partial(torch.optim.SGD, lr=0.3, momentum=0.9),
    )
    run = trainer(max_epochs=2)
    run.fit(task, data)
    (tested,) = run.test(task, data, verbose=False)
    noisy, clean = next(data.batches("test"))
    assert tested["test/loss"] == pytest.approx(float((task.model(noisy) - clean).abs().mean().detach()), rel=1e-5)
    (predicted,) = run.predict(task, data.test_dataloader())
    assert predicted.shape == (8, 1)
    assert task.model.lowest < -2 < 2 < task.model.highest
    run.save_checkpoint(tmp_path / "last.ckpt")
    loaded = graphseq.load(tmp_path / "last.ckpt")
    assert min(float(layer.weight.min()) for layer in loaded.model.potential.hidden) >= 0  # acceptance 7
    assert torch.equal(loaded.model.eval()(noisy), task.model.eval()(noisy))
    assert torch.equal(loaded.model.highest, task.model.highest)


def test_values_beyond_the_training_are_refused():
    f = network(1)
    f.train()
    f.lowest.fill_(math.inf)
    f.highest.fill_(-math.inf)
    f(torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None])
    f.eval()
    with torch.no_grad():
        f(torch.full((1, 1), 50.0, dtype=torch.float64))  # evaluation does not count
        inside, outside = f(torch.tensor([[1.9], [2.5]], dtype=torch.float64)).split(1)
    assert float(f.invert(inside)) == pytest.approx(1.9, abs=1e-4)
    assert float(f.invert(outside)) == pytest.approx(2.5, abs=1e-4)  # x itself is inside
    with pytest.raises(ValueError, match=r"x ranges.* 2\.5,.*-2 to 2"):
        f.prior(torch.tensor([[2.5]], dtype=torch.float64))
    f.reset_parameters()
    assert math.isinf(float(f.highest))


def test_what_has_no_inverse():
    """Without strong convexity the gradient is bounded."""
    f = network(1, alpha=0.0)
    with pytest.raises(ValueError, match=r"x\[1\] has no inverse.*alpha"):
        f.invert(torch.tensor([[0.1], [1e4]], dtype=torch.float64), max_iterations=50)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda f: LearnedProximal(f.potential, alpha=-0.1), ValueError, r"alpha is -0\.1"),
        (lambda f: LearnedProximal(torch.exp), TypeError, "potential"),
        (lambda f: f(torch.ones(2, 2, dtype=torch.int64)), TypeError, "int64"),
        (lambda f: f(torch.ones(2, 2, dtype=torch.complex64)), TypeError, "complex64"),
        (lambda f: f(torch.ones(2, 3)), ValueError, "2 values"),
        (lambda f: f.prior(torch.tensor([[0.0, math.nan]])), ValueError, "NaN"),
        (lambda f: f.invert(torch.ones(1, 2, dtype=torch.uint8)), TypeError, "uint8"),
        (lambda f: f.invert(torch.ones(1, 2), tolerance=0.0), ValueError, r"tolerance is 0\.0"),
        (lambda f: LearnedProximal(make(nn.Identity))(torch.ones(3, 2)), ValueError, r"Identity returned \(3, 2\)"),
    ],
)
def test_bad_input(trained, call, error, words):
    with pytest.raises(error, match=words):
        call(trained)


@pytest.mark.slow
def test_the_prior_of_digits_grows_with_noise():
    """Acceptance 9, after a training as in examples/deblur_with_a_learned_prior.py."""
    lightning.seed_everything(0, verbose=False)
    data = DenoisingImagesDataModule("digits", noise=0.2, batch_size=64)
    network = LearnedProximal(InputConvexNetwork(64, hidden_features=100, num_layers=3), alpha=0.01)
    adam = functools.partial(torch.optim.Adam, lr=4e-3)
    task = Regression(network, loss=ProximalMatchingLoss(1.28), optimizer=adam)
    annealing = ProximalAnnealing([(500, None, 4e-3), (200, 5.12, 4e-3), (200, 2.56, 2e-3), (200, 1.28, 1e-3)])
    trainer(max_epochs=50, limit_val_batches=0, callbacks=[annealing]).fit(task, data)
    clean = next(data.batches("test"))[1][:100]
    noise = torch.randn_like(clean)
    priors = torch.stack([network.prior(clean + level * noise, 1e-4) for level in (0.0, 0.05, 0.1, 0.15, 0.2)])
    growing = (priors.diff(dim=0) > 0).all(0)
    assert float(growing.double().mean()) >= 0.9
    with pytest.raises(ValueError, match="noisy values of the training"):
        network.prior(clean + 0.5 * noise)


@pytest.mark.effect
def test_errors_to_the_soft_threshold():
    """Acceptance 8: proximal matching below 0.6 of the absolute error, which is below the squared one, over 3 seeds."""
    made = load_experiment("effect.lpn")
    error, slopes = {}, []
    for arm in ("L2", "L1", "matching"):
        rows = [made.run({"task": "Laplace", "arm": arm, "seed": seed}, "default") for seed in range(3)]
        error[arm] = sum(row["error"] for row in rows) / 3
        slopes += [row["slope"] for row in rows if arm == "matching"]
    assert error["matching"] < 0.6 * error["L1"] < 0.6 * error["L2"]
    assert max(abs(slope - 1) for slope in slopes) < 0.1


def test_nan_and_empty_batches_leave_the_range_of_the_training():
    network = LearnedProximal(InputConvexNetwork(2, 4, 2), alpha=0.1)
    network(torch.tensor([[-1.0, 2.0]]))
    network(torch.full((1, 2), math.nan))
    assert network(torch.zeros(0, 2)).shape == (0, 2)
    assert (float(network.lowest), float(network.highest)) == (-1, 2)
    with pytest.raises(ValueError, match="is empty"):
        network.invert(torch.zeros(0, 2))
