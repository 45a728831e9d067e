"""Learned weights, the queue, and outer objectives, against plain loops, closed forms and finite differences."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from graphseq.core import DataError
from graphseq.nn import (
    CORAL,
    DecorrelationOuter,
    EnvironmentBatch,
    FeatureQueue,
    GroupDRO,
    InvariantRisk,
    SampleWeights,
    UnrolledOuter,
    VarianceRisk,
)
from graphseq.nn.reweighting.outer import OuterBatch, VirtualLearner
from graphseq.ops import effective_sample_size
from tests.reference import reweight as reference


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def double(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


# weights


@given(seed=st.integers(0, 10**6), size=st.integers(1, 12), spread=st.floats(0, 6), ess_min=st.floats(0, 0.95))
@settings(max_examples=40, deadline=None)
def test_weights_equal_the_loops_and_keep_the_bound(seed, size, spread, ess_min):
    weights = SampleWeights(size, ess_min=ess_min).double()
    weights.logit.data = spread * double(size, seed=seed)
    found = weights(torch.arange(size)).detach()
    expected = torch.tensor(reference.weights(weights.logit.tolist(), ess_min), dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert float(effective_sample_size(found)) >= ess_min - 1e-9
    assert float(found.mean()) == pytest.approx(1.0)
    assert (found > 0).all()


def test_bound_is_reached_exactly_and_not_exceeded():
    weights = SampleWeights(50, ess_min=0.4).double()
    weights.logit.data = 3 * double(50)
    assert float(effective_sample_size(weights(torch.arange(50)).detach())) == pytest.approx(0.4, rel=1e-12)


@pytest.mark.parametrize("spread", [0.3, 3.0])  # below the bound and at it
def test_weights_have_the_right_gradient(spread):
    weights = SampleWeights(8, ess_min=0.5).double()
    logit = (spread * double(8)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: weights.bound(weights.normalize(a)), logit)


@pytest.mark.parametrize("size", [3, 49, 1000])
def test_equal_numbers_give_exactly_one(size):
    weights = SampleWeights(size)
    weights.logit.data.fill_(0.37)
    assert torch.equal(weights(torch.arange(size)), torch.ones(size))


def test_others_share_the_mean_and_have_no_part_in_the_gradient():
    weights = SampleWeights(4, ess_min=0.0)
    others = torch.tensor([1.0, 2.0])
    found = weights(torch.tensor([3, 1]), others)
    assert found.shape == (4,)
    assert float(found.detach().mean()) == pytest.approx(1.0)
    found[0].backward()
    assert weights.logit.grad.is_sparse
    assert weights.logit.grad.coalesce().indices().tolist() == [[1, 3]]


def test_a_step_moves_the_samples_of_the_batch_alone():
    weights = SampleWeights(6)
    optimizer = torch.optim.SparseAdam([weights.logit], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        weights(torch.tensor([4, 1, 1]))[0].backward()
        optimizer.step()
    moved = weights.logit.detach() != 0
    assert moved.tolist() == [False, True, False, False, True, False]


@pytest.mark.parametrize(
    "idx", [torch.tensor([0, 5]), torch.tensor([-1]), torch.tensor([0.0]), torch.tensor([[1]]), torch.tensor([True])]
)
def test_indices_that_are_none(idx):
    with pytest.raises(DataError, match="idx"):
        SampleWeights(5)(idx)


@pytest.mark.parametrize("options", [{"num_samples": 0}, {"ess_min": 1.0}, {"ess_min": -0.1}])
def test_weights_refuse(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SampleWeights(**options)


def test_no_sample_has_no_weight():
    assert SampleWeights(3)(torch.zeros(0, dtype=torch.int64)).shape == (0,)


def test_weights_learn_their_number_later_and_from_a_checkpoint():
    weights = SampleWeights()
    weights.materialize(3)
    weights.materialize(3)
    with pytest.raises(DataError, match="3 samples"):
        weights.materialize(4)
    weights.logit.data = torch.tensor([1.0, 2.0, 3.0])
    other = SampleWeights()
    other.load_state_dict(weights.state_dict())
    assert torch.equal(other.logit, weights.logit)
    assert isinstance(other.logit, nn.Parameter)
    weights.reset_parameters()
    assert not weights.logit.any()


# queue


def batches(*sizes, width=3):
    return [double(size, width, seed=number) for number, size in enumerate(sizes)]


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=7), num_blocks=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_fifo_equals_the_loops(sizes, num_blocks):
    queue, data = FeatureQueue(num_blocks), batches(*sizes)
    for number, z in enumerate(data):
        z.requires_grad_()
        queue.push(z, z[:, 0], torch.full((len(z),), number))
    kept = reference.fifo([z.tolist() for z in data], num_blocks)
    assert queue.capacity == num_blocks * sizes[0]
    assert torch.equal(queue.z, torch.tensor(kept, dtype=torch.float64))
    assert torch.equal(queue.logit, queue.z[:, 0])
    labels = reference.fifo([[number] * len(z) for number, z in enumerate(data)], num_blocks)
    assert queue.env.tolist() == labels
    assert not queue.z.requires_grad
    assert not queue.logit.requires_grad


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6), num_blocks=st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_moving_averages_equal_the_loops(sizes, num_blocks):
    queue, data = FeatureQueue(num_blocks, "ema", momentum=0.8), batches(*sizes)
    for z in data:
        queue.push(z, 2 * z[:, 1])
    expected = torch.tensor(reference.ema([z.tolist() for z in data], num_blocks, 0.8), dtype=torch.float64)
    torch.testing.assert_close(queue.z, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(queue.logit, 2 * expected[:, 1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", ["fifo", "ema"])
def test_a_saved_queue_goes_on_where_it_was(mode):
    data = batches(4, 4, 2, 4, 4, 4)
    queue = FeatureQueue(3, mode)
    for z in data[:2]:
        queue.push(z, z[:, 0])
    other = FeatureQueue(3, mode)
    other.load_state_dict(queue.state_dict())
    copied = copy.deepcopy(queue)
    for z in data[2:]:
        for each in (queue, other, copied):
            each.push(z, z[:, 0])
    for each in (other, copied):
        assert all(torch.equal(value, each.state_dict()[name]) for name, value in queue.state_dict().items())
    assert len(queue) == 12


def test_queue_does_not_grow_and_no_queue_stays_empty():
    queue, none = FeatureQueue(2), FeatureQueue(0)
    for z in batches(*[3] * 50):
        queue.push(z, z[:, 0])
        none.push(z, z[:, 0])
    assert (len(queue), len(none)) == (6, 0)


def test_queue_refuses():
    for options in ({"num_blocks": -1}, {"mode": "lifo"}, {"momentum": 1.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            FeatureQueue(**options)
    queue = FeatureQueue()
    queue.push(torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(ValueError, match="representations"):
        queue.push(torch.zeros(2, 4), torch.zeros(2))
    for others in ([torch.zeros(1)], [torch.zeros(2), torch.zeros(3, dtype=torch.int64)]):
        with pytest.raises(ValueError, match="one row for each sample"):
            queue.push(torch.zeros(2, 3), *others)
    assert len(queue.z) == len(queue.logit) == len(queue.env) == 2


# decorrelation


def outer_batch(z, weight, seed=0):
    return OuterBatch(z, weight, weight, None, generator(seed))


def test_one_cluster_is_nothing_and_as_many_as_variables_is_all_pairs():
    z, weight = double(40, 4), (double(40, seed=1).abs() + 0.1).requires_grad_()
    one = DecorrelationOuter(num_clusters=1)
    one.recluster(z, None, generator())
    loss, _ = one(outer_batch(z, weight))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not weight.grad.any()
    each = DecorrelationOuter(num_clusters=4)
    each.recluster(z, None, generator())
    found = each(outer_batch(z, weight))[0]
    assert torch.equal(found, DecorrelationOuter("all")(outer_batch(z, weight))[0])
    assert torch.equal(found, DecorrelationOuter(clusters=[0, 1, 2, 3])(outer_batch(z, weight))[0])
    assert float(found.detach()) > 0


def test_learned_weights_make_clusters_independent():
    """Two binary variables that agree in 85 % of the samples; drawn cosines stand for any function of them."""
    agree = torch.arange(400) < 340
    a = torch.arange(400) % 2
    z = torch.stack([a, torch.where(agree, a, 1 - a)], dim=1).double()
    weights = SampleWeights(400).double()
    optimizer = torch.optim.SparseAdam([weights.logit], lr=0.05)
    outer, draws = DecorrelationOuter("all"), generator()
    for _ in range(200):
        optimizer.zero_grad()
        weight = weights(torch.arange(400))
        outer(OuterBatch(z, weight, weight, None, draws))[0].backward()
        optimizer.step()
    weight = weights(torch.arange(400)).detach()
    assert float(weight[~agree].mean() / weight[agree].mean()) == pytest.approx(0.85 / 0.15, rel=0.05)
    assert float(effective_sample_size(weight)) == pytest.approx(0.51, abs=0.02)


def blocks(seed, samples=60, groups=10):
    """Two blocks of five variables; the sign between them flips from group to group."""
    draws, rows = generator(seed), []
    for label in range(groups):
        common = torch.randn(samples, 1, generator=draws)
        left = common + 0.5 * torch.randn(samples, 5, generator=draws)
        right = (1 if label % 2 else -1) * common + 0.5 * torch.randn(samples, 5, generator=draws)
        rows.append(torch.cat([left, right], dim=1))
    return torch.cat(rows), torch.arange(groups).repeat_interleave(samples)


def test_clusters_by_environment_are_found():
    z, env = blocks(0)
    outer = DecorrelationOuter(num_clusters=2, source="environments")
    outer.recluster(z, env + 7, generator())
    assert outer.cluster.tolist() == [0] * 5 + [1] * 5
    with pytest.raises(DataError, match="one environment"):
        outer.recluster(z, torch.zeros_like(env), generator())


@pytest.mark.parametrize("kind", ["constant", "collinear", "huge"])
def test_degenerate_representations(kind):
    z = torch.randn(60, 1, generator=generator()).repeat(1, 6)
    if kind == "constant":
        z = torch.full((60, 6), 3.0)
    if kind == "huge":
        z = 1e20 * z
    weight = torch.ones(60, requires_grad=True)
    outer = DecorrelationOuter(num_clusters=3)
    outer.recluster(z, None, generator())
    loss, _ = outer(outer_batch(z, weight))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(weight.grad).all()
    assert len(outer.cluster.unique()) == 3
    if kind == "constant":
        assert float(loss.detach()) < 1e-10


def test_default_number_of_clusters():
    outer = DecorrelationOuter()
    assert not outer.ready
    outer.recluster(torch.randn(60, 32, generator=generator()), None, generator())
    assert outer.ready
    assert len(outer.cluster.unique()) == 4
    other = DecorrelationOuter()
    other.load_state_dict(outer.state_dict())
    assert torch.equal(other.cluster, outer.cluster)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_clusters": 0}, "num_clusters"),
        ({"num_clusters": "some"}, "num_clusters"),
        ({"source": "nodes"}, "source"),
        ({"clusters": []}, "clusters"),
        ({"clusters": [0, 1], "num_clusters": 2}, "clusters"),
        ({"num_features": 0}, "num_features"),
        ({"num_groups": 1}, "num_groups"),
        ({"min_count": 2}, "min_count"),
        ({"scale": -1.0}, "scale"),
        ({"estimator": "best"}, "estimator"),
    ],
)
def test_decorrelation_refuses(options, named):
    with pytest.raises(ValueError, match=named):
        DecorrelationOuter(**options)


def test_clusters_need_samples_and_variables():
    with pytest.raises(DataError, match="11 samples are known.*at least 12"):
        DecorrelationOuter(num_clusters=12).recluster(torch.randn(11, 20), None, generator())
    with pytest.raises(DataError, match="9 samples are known.*at least 10"):
        DecorrelationOuter(num_clusters=2).recluster(torch.randn(9, 20), None, generator())
    with pytest.raises(ValueError, match="reads 4 variables"):
        DecorrelationOuter(num_clusters=5).recluster(torch.randn(50, 4), None, generator())


# unrolled


class Regressor:
    """Least squares with a bias: losses of each sample, and what the meta-gradient of one step must be."""

    def __init__(self, samples=6, width=3):
        self.x, self.y = double(samples, width), double(samples, seed=1)
        self.val_x, self.val_y = double(4, width, seed=2), double(4, seed=3)
        self.start = {"weight": double(width, seed=4), "bias": double(1, seed=5)}

    def losses(self, parameters):
        each = (self.x @ parameters["weight"] + parameters["bias"] - self.y).square()
        return each, torch.ones_like(each)

    def validation(self, parameters):
        return (self.val_x @ parameters["weight"] + parameters["bias"] - self.val_y).square().mean()

    def learner(self, scope):
        return VirtualLearner(self.start, self.losses, self.validation)

    def outer_batch(self, weight):
        return OuterBatch(self.x, weight, weight, self.learner, generator())


def test_one_step_is_the_product_of_two_gradients():
    problem, lr = Regressor(), 0.05
    weight = (double(6, seed=6).abs() + 0.5).requires_grad_()
    loss, _ = UnrolledOuter("head", steps=1, lr=lr)(problem.outer_batch(weight))
    (found,) = torch.autograd.grad(loss, weight)

    start = {name: value.clone().requires_grad_() for name, value in problem.start.items()}
    terms, _ = problem.losses(start)
    each = [torch.autograd.grad(term, list(start.values()), retain_graph=True) for term in terms]
    mean = [sum(w * g[k] for w, g in zip(weight.detach(), each, strict=True)) / 6 for k in range(2)]
    after = {n: (v - lr * g).detach().requires_grad_() for (n, v), g in zip(start.items(), mean, strict=True)}
    outer = torch.autograd.grad(problem.validation(after), list(after.values()))
    expected = [-lr / 6 * sum(float((a * b).sum()) for a, b in zip(outer, g, strict=True)) for g in each]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 4])
def test_unrolled_gradient_equals_finite_differences(steps):
    problem, outer = Regressor(), UnrolledOuter("head", steps=steps, lr=0.05)
    weight = (double(6, seed=6).abs() + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: outer(problem.outer_batch(w))[0], weight, eps=1e-6, atol=1e-5)
    before = {name: value.clone() for name, value in problem.start.items()}
    outer(problem.outer_batch(weight))[0].backward()
    assert all(torch.equal(value, problem.start[name]) for name, value in before.items())
    assert all(value.grad is None for value in problem.start.values())


def test_the_learner_says_how_long_a_step_is():
    problem, weight = Regressor(), torch.ones(6, dtype=torch.float64)
    learner = VirtualLearner(problem.start, problem.losses, problem.validation, 0.03)
    batch = OuterBatch(problem.x, weight, weight, lambda scope: learner, generator())
    found = UnrolledOuter(steps=2)(batch)[0]
    assert torch.equal(found, UnrolledOuter(steps=2, lr=0.03)(batch)[0])
    assert not torch.equal(found, UnrolledOuter(steps=2, lr=0.04)(batch)[0])


def test_unrolled_adds_the_decorrelation():
    problem, weight = Regressor(samples=30, width=4), torch.ones(30, dtype=torch.float64)
    alone, _ = UnrolledOuter(steps=2, lr=0.01, scale=0.5)(problem.outer_batch(weight))
    term, _ = DecorrelationOuter("all", scale=3.0)(problem.outer_batch(weight))
    both, logged = UnrolledOuter(steps=2, lr=0.01, scale=0.5, decorrelation=DecorrelationOuter("all", scale=3.0))(
        problem.outer_batch(weight)
    )
    torch.testing.assert_close(both, alone + term)
    assert set(logged) == {"validation", "decorrelation"}
    waiting = UnrolledOuter(steps=2, lr=0.01, scale=0.5, decorrelation=DecorrelationOuter(2))
    assert torch.equal(waiting(problem.outer_batch(weight))[0], alone)


def test_unrolled_refuses():
    for options in ({"parameters": "some"}, {"steps": 0}, {"lr": 0.0}, {"scale": -1.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            UnrolledOuter(**options)
    with pytest.raises(ValueError, match="validation data"):
        UnrolledOuter()(outer_batch(torch.zeros(2, 2), torch.ones(2)))


# environments


def environment_batch(logits, labels, env, z=None):
    terms = functional.cross_entropy(logits, labels, reduction="none")
    return EnvironmentBatch(terms, torch.ones_like(terms), env, logits, logits if z is None else z)


def case(seed, samples=9):
    logits = double(samples, 3, seed=seed).requires_grad_()
    labels = torch.randint(0, 3, (samples,), generator=generator(seed))
    env = torch.randint(0, 3, (samples,), generator=generator(seed + 1))
    return logits, labels, env


@pytest.mark.parametrize(("loss", "loops"), [(InvariantRisk, "invariant_risk"), (VarianceRisk, "variance_risk")])
@given(seed=st.integers(0, 10**6), samples=st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_penalised_risks_equal_the_loops(loss, loops, seed, samples):
    logits, labels, env = case(seed, samples)
    found, logged = loss(scale=2.5)(environment_batch(logits, labels, 3 * env))

    def expected(values):
        return getattr(reference, loops)(values, labels.tolist(), env.tolist(), 2.5)

    assert float(found.detach()) == pytest.approx(expected(logits.tolist()), rel=1e-10)
    assert not logged["environment_penalty"].requires_grad
    (gradient,) = torch.autograd.grad(found, logits)
    slope = torch.tensor(reference.slope(expected, logits.tolist()), dtype=torch.float64)
    torch.testing.assert_close(gradient, slope, rtol=1e-5, atol=1e-8)


@given(seed=st.integers(0, 10**6), samples=st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_coral_equals_the_loops(seed, samples):
    logits, labels, env = case(seed, samples)
    z = double(samples, 2, seed=seed + 2).requires_grad_()
    found, _ = CORAL(scale=4.0)(environment_batch(logits, labels, env, z))
    expected = reference.coral(z.tolist(), env.tolist())
    mean = reference.mean_risk(logits.tolist(), labels.tolist(), env.tolist())
    assert float(found.detach()) == pytest.approx(mean + 4 * expected, rel=1e-10)
    (gradient,) = torch.autograd.grad(found, z)
    slope = reference.slope(lambda values: 4 * reference.coral(values, env.tolist()), z.tolist())
    torch.testing.assert_close(gradient, torch.tensor(slope, dtype=torch.float64), rtol=1e-5, atol=1e-8)


def test_group_dro_equals_the_loops_over_steps():
    loss, share = GroupDRO(4, step_size=0.7).double(), [0.25] * 4
    for seed in range(5):
        logits, labels, env = case(seed)
        found, _ = loss(environment_batch(logits, labels, env))
        (gradient,) = torch.autograd.grad(found, logits)
        expected, share = reference.group_dro(logits.tolist(), labels.tolist(), env.tolist(), share, 0.7)
        assert float(found.detach()) == pytest.approx(expected, rel=1e-10)
        torch.testing.assert_close(loss.share, torch.tensor(share, dtype=torch.float64), rtol=1e-10, atol=1e-12)

        fixed = partial(reference.group_dro, labels=labels.tolist(), env=env.tolist(), share=share, step_size=0.0)
        slope = reference.slope(lambda values, loops=fixed: loops(values)[0], logits.tolist())
        torch.testing.assert_close(gradient, torch.tensor(slope, dtype=torch.float64), rtol=1e-5, atol=1e-8)
    before = loss.share.clone()
    loss.eval()(environment_batch(*case(9)))
    assert torch.equal(loss.share, before)


def test_an_environment_that_vanished_comes_back():
    loss = GroupDRO(2, step_size=1.0)
    logits, labels = torch.tensor([[-60.0, 60.0], [60.0, -60.0]]), torch.zeros(2, dtype=torch.int64)
    for _ in range(3):  # environment 0 does worst until nothing is left of the other
        loss(environment_batch(logits, labels, torch.tensor([0, 1])))
    assert float(loss.share[1]) < 1e-30
    for _ in range(5):
        loss(environment_batch(logits, labels, torch.tensor([1, 0])))
    assert float(loss.share[1]) > 0.99


def test_environments_that_are_none():
    logits, labels, env = case(0)
    with pytest.raises(DataError, match="num_environments=2"):
        GroupDRO(2)(environment_batch(logits, labels, env))
    with pytest.raises(DataError, match="env is"):
        environment_batch(logits, labels, env.double())
    with pytest.raises(DataError, match="env is"):
        environment_batch(logits, labels, env[:-1])
    for loss in (InvariantRisk, VarianceRisk, CORAL):
        with pytest.raises(ValueError, match="scale"):
            loss(scale=-1.0)
    with pytest.raises(ValueError, match="num_environments"):
        GroupDRO(0)
    with pytest.raises(ValueError, match="step_size"):
        GroupDRO(2, step_size=-1.0)


@pytest.mark.parametrize("loss", [VarianceRisk(2.0), InvariantRisk(2.0), CORAL(0.0), GroupDRO(3)], ids=repr)
def test_an_environment_without_a_known_target_has_no_risk(loss):
    logits, labels, env = case(3)
    known = env != 1
    assert 1 in env
    terms = functional.cross_entropy(logits, labels, reduction="none")
    found, _ = loss.eval()(EnvironmentBatch(terms * known, known.double(), env, logits, logits))
    expected, _ = loss(environment_batch(logits[known], labels[known], env[known]))
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, logits, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0])


def test_a_batch_without_a_known_target_has_no_loss_but_a_gradient():
    logits, _, env = case(3)
    for loss in (VarianceRisk(2.0), InvariantRisk(2.0)):
        found, _ = loss(EnvironmentBatch(logits.sum(1) * 0, torch.zeros(9), env, logits, logits))
        (gradient,) = torch.autograd.grad(found, logits)
        assert (float(found.detach()), bool(gradient.any())) == (0, False)


def test_one_environment_has_no_penalty_but_that_of_its_own_scale():
    logits, labels, _ = case(3)
    env = torch.zeros(9, dtype=torch.int64)
    mean = functional.cross_entropy(logits, labels)
    for loss in (VarianceRisk(5.0), CORAL(5.0)):
        torch.testing.assert_close(loss(environment_batch(logits, labels, env))[0], mean)
    assert float(InvariantRisk(5.0)(environment_batch(logits, labels, env))[0].detach()) > float(mean.detach())
