import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from graphseq.nn import PRESCorrector, memory_coherence_loss
from tests.reference import pres as reference

RATES = ["update", "time", "event"]
ESTIMATORS = ["ratio", "mean"]
every_form = pytest.mark.parametrize(
    ("rate", "estimator"), [(rate, estimator) for rate in RATES for estimator in ESTIMATORS]
)
STATE = ["count", "weight_sum", "rate_sum", "square_sum"]

pytestmark = pytest.mark.usefixtures("way")


def fixed(gamma, num_nodes=6, memory_dim=3, **kwargs):
    return PRESCorrector(num_nodes, memory_dim, gamma_init=gamma, gamma_learnable=False, **kwargs).double()


def updates(count, nodes, components, dim, seed, num_nodes=6):
    """Random batches of distinct nodes, some of which have no pending events."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        n_id = torch.randperm(num_nodes, generator=generator)[:nodes]
        type_counts = torch.randint(0, 4, (nodes, components), generator=generator)
        type_counts[type_counts.sum(1) == 0, 0] = 1
        yield {
            "n_id": n_id,
            "previous": torch.randn(nodes, dim, generator=generator, dtype=torch.float64),
            "corrected": torch.randn(nodes, dim, generator=generator, dtype=torch.float64),
            "pending": torch.rand(nodes, generator=generator) < 0.7,
            # equal times, and gaps beyond what predictions are clipped to
            "elapsed": torch.tensor([0, 1, 40, 300, 5000])[torch.randint(0, 5, (nodes,), generator=generator)],
            "num_events": type_counts.sum(1),
            "type_counts": type_counts,
        }


def observe(tracker, batch, components):
    for k, node in enumerate(batch["n_id"].tolist()):
        if batch["pending"][k]:
            tracker.observe(
                node,
                batch["previous"][k].tolist(),
                batch["corrected"][k].tolist(),
                batch["type_counts"][k].tolist() if components > 1 else [1],
                int(batch["elapsed"][k]),
                int(batch["num_events"][k]),
            )


@every_form
@pytest.mark.parametrize("components", [1, 3])
def test_moments_and_corrections_equal_lists(rate, estimator, components):
    corrector = fixed(
        0.7, num_components=components, rate=rate, estimator=estimator, time_scale=20.0, track_variance=True
    )
    tracker = reference.Tracker(rate, estimator, time_scale=20.0)
    for batch in updates(25, 4, components, 3, seed=components):
        inputs = {name: batch[name] for name in ("elapsed", "num_events", "type_counts")}
        measured = batch["corrected"] + 1
        for counts in (None, inputs["type_counts"]):
            kwargs = inputs | {"type_counts": counts}
            corrected = corrector(batch["n_id"], batch["previous"], measured, batch["pending"], **kwargs)
            for k, node in enumerate(batch["n_id"].tolist()):
                predicted = tracker.predict(
                    node,
                    batch["previous"][k].tolist(),
                    components,
                    None if counts is None or components == 1 else counts[k].tolist(),
                    int(batch["elapsed"][k]),
                    int(batch["num_events"][k]),
                )
                predicted = predicted if batch["pending"][k] else None
                expected = tracker.correct(float(corrector.gamma), measured[k].tolist(), predicted)
                assert corrected[k].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9)
                if predicted is None:
                    assert torch.equal(corrected[k], measured[k])
        before = {name: getattr(corrector, name).clone() for name in STATE}
        if components == 1:
            inputs.pop("type_counts")
        corrector.update(batch["n_id"], batch["previous"], batch["corrected"], batch["pending"], **inputs)
        observe(tracker, batch, components)
        others = torch.ones(6, dtype=torch.bool)
        others[batch["n_id"][batch["pending"]]] = False
        for name, value in before.items():
            assert torch.equal(getattr(corrector, name)[others], value[others])
    mean, variance = corrector.moments(torch.arange(6))
    for node in range(6):
        for j in range(components):
            wanted = tracker.moments(node, j, 3)
            assert mean[node, j].tolist() == pytest.approx(wanted[0], abs=1e-9)
            assert variance[node, j].tolist() == pytest.approx(wanted[1], rel=1e-6, abs=1e-7)
            assert float(corrector.count[node, j]) == pytest.approx(tracker.count(node, j))


@every_form
def test_single_precision(rate, estimator):
    wide = fixed(0.7, rate=rate, estimator=estimator, time_scale=20.0, track_variance=True)
    narrow = PRESCorrector(6, 3, rate=rate, estimator=estimator, time_scale=20.0, track_variance=True)
    for batch in updates(25, 4, 1, 3, seed=0):
        steps = {name: batch[name] for name in ("elapsed", "num_events")}
        for corrector, kind in ((wide, torch.float64), (narrow, torch.float32)):
            rows = (batch[name].to(kind) for name in ("previous", "corrected"))
            corrector.update(batch["n_id"], *rows, batch["pending"], **steps)
    for mine, exact in zip(narrow.moments(torch.arange(6)), wide.moments(torch.arange(6)), strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine.double(), exact, rtol=1e-5, atol=1e-5)


@every_form
def test_nodes_that_stand_in_a_batch_twice_add_up(rate, estimator):
    corrector = fixed(0.5, rate=rate, estimator=estimator, track_variance=True)
    tracker = reference.Tracker(rate, estimator)
    for batch in updates(5, 4, 1, 3, seed=5):
        batch["n_id"] = torch.tensor([2, 0, 2, 2])
        steps = {name: batch[name] for name in ("elapsed", "num_events")}
        corrector.update(batch["n_id"], batch["previous"], batch["corrected"], batch["pending"], **steps)
        observe(tracker, batch, 1)
    mean, variance = corrector.moments(torch.tensor([2, 0, 1]))
    for k, node in enumerate([2, 0, 1]):
        wanted = tracker.moments(node, 0, 3)
        assert mean[k, 0].tolist() == pytest.approx(wanted[0])
        assert variance[k, 0].tolist() == pytest.approx(wanted[1], rel=1e-6, abs=1e-7)


def trained(gamma=0.6, **kwargs):
    corrector = fixed(gamma, **kwargs)
    for batch in updates(6, 5, corrector.num_components, 3, seed=1):
        batch["pending"][:] = True
        corrector.update(**batch)
    return corrector


@every_form
def test_gamma_of_one_is_the_measured_memory(rate, estimator):
    corrector = trained(1.0, rate=rate, estimator=estimator)
    for batch in updates(5, 4, 1, 3, seed=2):
        measured = batch.pop("corrected").requires_grad_()
        corrected = corrector(measured=measured, **batch)
        assert torch.equal(corrected, measured)
        (gradient,) = torch.autograd.grad(corrected.sum(), measured)
        assert torch.equal(gradient, torch.ones_like(gradient))
        corrector.update(corrected=corrected, **batch)


@every_form
def test_gamma_of_zero_is_the_prediction(rate, estimator):
    corrector = trained(0.0, rate=rate, estimator=estimator)
    cell = nn.GRUCell(4, 3).double()
    n_id, previous = torch.tensor([0, 3]), torch.randn(2, 3, dtype=torch.float64)
    measured = cell(torch.randn(2, 4, dtype=torch.float64), previous)
    steps = {"elapsed": torch.tensor([2, 3]), "num_events": torch.tensor([1, 4])}
    step = {"update": torch.ones(2), "time": steps["elapsed"], "event": steps["num_events"]}[rate]
    assert (corrector.count[n_id] > 0).all()
    corrected = corrector(n_id, previous, measured, torch.ones(2, dtype=torch.bool), **steps)
    drift = step.double().unsqueeze(1) * corrector.moments(n_id)[0][:, 0]
    torch.testing.assert_close(corrected, previous + drift, rtol=0, atol=1e-12)
    for gradient in torch.autograd.grad(corrected.sum(), list(cell.parameters())):
        assert not gradient.any()


def test_nodes_that_were_never_tracked_keep_their_measured_memory():
    corrector = fixed(0.2, num_components=2)
    one = torch.ones(1, 3, dtype=torch.float64)
    pending = torch.tensor([True])
    corrector.update(torch.tensor([4]), 0 * one, one, pending, type_counts=torch.tensor([[1, 0]]))
    measured = torch.randn(1, 3, dtype=torch.float64)
    for node, counts in [(1, [[1, 0]]), (1, None), (4, [[0, 2]])]:
        counts = None if counts is None else torch.tensor(counts)
        assert torch.equal(corrector(torch.tensor([node]), one, measured, pending, type_counts=counts), measured)
    # a type that was never seen has no say where another one was
    for counts in ([[3, 0]], [[1, 2]], None):
        counts = None if counts is None else torch.tensor(counts)
        corrected = corrector(torch.tensor([4]), one, measured, pending, type_counts=counts)
        torch.testing.assert_close(corrected, 0.2 * measured + 0.8 * 2 * one)


def test_gradients_reach_the_measured_memory_and_the_gate_only():
    corrector = PRESCorrector(6, 3, num_components=2, gamma_init=0.6).double()
    for batch in updates(6, 5, 2, 3, seed=1):
        corrector.update(**batch)
    n_id, pending = torch.tensor([0, 1, 2, 5]), torch.tensor([True, True, False, True])
    measured = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    previous = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    corrected = corrector(n_id, previous, measured, pending)
    with torch.no_grad():
        predicted, known = corrector.predict(n_id, previous)
    grads = torch.autograd.grad(corrected.sum(), [measured, corrector.gate, previous], allow_unused=True)
    fused = (pending & known).unsqueeze(1)
    gamma = float(corrector.gamma.detach())
    torch.testing.assert_close(grads[0], torch.where(fused, gamma, 1.0).double().expand(4, 3))
    slope = (fused * (measured - predicted)).sum() * gamma * (1 - gamma)
    torch.testing.assert_close(grads[1], slope)
    assert grads[2] is None

    def function(measured, gate):
        return torch.func.functional_call(corrector, {"gate": gate}, (n_id, previous.detach(), measured, pending))

    assert torch.autograd.gradcheck(function, (measured, corrector.gate))


def test_update_keeps_nothing_of_the_graph():
    corrector = PRESCorrector(6, 3)
    measured = torch.randn(2, 3, requires_grad=True)
    corrector.update(torch.tensor([0, 1]), torch.zeros(2, 3), measured * 2, torch.ones(2, dtype=torch.bool))
    assert not corrector.rate_sum.requires_grad
    assert corrector.rate_sum[:2].any()


def drifting(observations, rate, num_nodes=3000, sigma=0.5, dim=4):
    """Nodes that truly move with a velocity of their own and are measured with noise; the true start of each move."""
    torch.manual_seed(observations)
    velocity = torch.randn(num_nodes, dim, dtype=torch.float64)
    nodes, all_of_them = torch.arange(num_nodes), torch.ones(num_nodes, dtype=torch.bool)
    corrector = fixed(0.5, num_nodes, dim, rate=rate, time_scale=10.0)
    true = torch.randn(num_nodes, dim, dtype=torch.float64)
    kwargs = {"elapsed": torch.full((num_nodes,), 20.0), "num_events": torch.full((num_nodes,), 2)}
    step = 1.0 if rate == "update" else 2.0
    for _ in range(observations):
        measured = true + step * velocity + sigma * torch.randn_like(true)
        corrector.update(nodes, true, measured, all_of_them, **kwargs)
        true = true + step * velocity
    measured = true + step * velocity + sigma * torch.randn_like(true)
    return corrector, (nodes, true, measured, all_of_them), kwargs, velocity, true + step * velocity


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("observations", [1, 3, 9])
def test_linear_drift_and_the_weight_by_inverse_variance(rate, observations):
    sigma = 0.5
    corrector, inputs, kwargs, _, true = drifting(observations, rate, sigma=sigma)
    predicted, known = corrector.predict(*inputs[:2], **kwargs)
    assert known.all()
    of_prediction = float((predicted - true).square().mean())
    assert of_prediction == pytest.approx(sigma**2 / observations, rel=0.05)
    of_measurement = float((inputs[2] - true).square().mean())
    errors = {}
    for gamma in torch.linspace(0, 1, 41).tolist():
        twin = fixed(gamma, 3000, 4, rate=rate, time_scale=10.0)
        twin.load_state_dict(corrector.state_dict() | {"gate": twin.gate})
        errors[gamma] = float((twin(*inputs, **kwargs) - true).square().mean())
    assert all(error < of_measurement for gamma, error in errors.items() if 0.5 <= gamma < 1)
    best = min(errors, key=errors.get)
    assert best == pytest.approx(of_prediction / (of_prediction + of_measurement), abs=0.05)
    assert best == pytest.approx(1 / (1 + observations), abs=0.05)


def test_rates_converge_as_one_over_the_root_of_the_observations():
    errors = []
    for observations in (4, 64):
        corrector, inputs, _, velocity, _ = drifting(observations, "time")
        errors.append(float((corrector.moments(inputs[0])[0][:, 0] - velocity).square().mean().sqrt()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)


def test_the_ratio_stays_calm_where_gaps_vanish():
    """Equal drift and noise, gaps between 0 and 2: rates of short gaps are mostly noise."""
    torch.manual_seed(0)
    nodes, pending = torch.arange(2000), torch.ones(2000, dtype=torch.bool)
    correctors = [fixed(0.5, 2000, 1, rate="time", estimator=name, step_min=1e-6) for name in ESTIMATORS]
    for _ in range(20):
        elapsed = 2 * torch.rand(2000, dtype=torch.float64)
        moved = elapsed.unsqueeze(1) + 0.1 * torch.randn(2000, 1, dtype=torch.float64)
        for corrector in correctors:
            corrector.update(nodes, torch.zeros_like(moved), moved, pending, elapsed=elapsed)
    errors = [float((corrector.moments(nodes)[0] - 1).square().mean()) for corrector in correctors]
    assert errors[0] < 0.001
    assert errors[1] > 10 * errors[0]


def test_steps_of_time():
    corrector = fixed(0.0, 2, 1, rate="time", time_scale=10.0, step_max=5.0)
    node, pending = torch.tensor([0]), torch.tensor([True])
    one = torch.ones(1, 1, dtype=torch.float64)
    corrector.update(node, 0 * one, 2 * one, pending, elapsed=torch.tensor([10]))

    def after(elapsed):
        return float(corrector(node, one, 9 * one, pending, elapsed=torch.tensor([elapsed])))

    assert after(0) == 1
    assert after(5) == 2
    assert after(50) == after(10**9) == 11
    corrector.update(node, 0 * one, one, pending, elapsed=torch.tensor([0]))  # at once: a rate of 1 / step_min at most
    assert float(corrector.moments(node)[0]) == pytest.approx(3 / 1.05)


def test_sampled_predictions_have_the_moments_of_the_mixture():
    dim = 3
    corrector = fixed(
        0.0, 1, dim, num_components=2, rate="event", sample_prediction=True, track_variance=True, estimator="mean"
    )
    tracker = reference.Tracker("event", "mean")
    generator = torch.Generator().manual_seed(0)
    pending = torch.tensor([True])
    for k in range(12):
        counts = torch.tensor([[1, 0]] if k % 4 else [[0, 1]])
        moved = torch.randn(1, dim, generator=generator, dtype=torch.float64) * (3 if k % 4 else 0.1) + (k % 4 == 0) * 5
        inputs = {"num_events": torch.tensor([1]), "type_counts": counts}
        corrector.update(torch.tensor([0]), torch.zeros_like(moved), moved, pending, **inputs)
        tracker.observe(0, [0.0] * dim, moved[0].tolist(), counts[0].tolist())
    draws = 20_000
    n_id, previous = torch.zeros(draws, dtype=torch.int64), torch.zeros(draws, dim, dtype=torch.float64)
    events = torch.full((draws,), 2)
    for counts, shares in ((None, [9 / 12, 3 / 12]), (torch.tensor([[1, 1]]).expand(draws, 2), [0.5, 0.5])):
        kwargs = {"num_events": events, "type_counts": counts}
        drawn, _ = corrector.predict(n_id, previous, **kwargs, generator=torch.Generator().manual_seed(1))
        moments = [tracker.moments(0, j, dim) for j in range(2)]
        for k in range(dim):
            mean = sum(share * mean[k] for share, (mean, _) in zip(shares, moments, strict=True))
            second = sum(share * (var[k] + mean[k] ** 2) for share, (mean, var) in zip(shares, moments, strict=True))
            assert float(drawn[:, k].mean()) == pytest.approx(2 * mean, abs=0.2)
            assert float(drawn[:, k].var()) == pytest.approx(4 * (second - mean**2), rel=0.06)
        again, _ = corrector.predict(n_id, previous, **kwargs, generator=torch.Generator().manual_seed(1))
        assert torch.equal(drawn, again)
    corrector.eval()
    still, _ = corrector.predict(n_id, previous, num_events=events)
    assert (still == still[0]).all()
    expected = tracker.predict(0, [0.0] * dim, 2, num_events=2)
    assert still[0].tolist() == pytest.approx(expected)


def test_rounding_makes_no_variance_negative():
    """Every change is the same: the difference of squares is rounding error, of either sign."""
    corrector = PRESCorrector(200, 8, track_variance=True)
    nodes, pending = torch.arange(200), torch.ones(200, dtype=torch.bool)
    change = torch.randn(200, 8)
    for _ in range(7):
        corrector.update(nodes, torch.zeros_like(change), change, pending)
    assert (corrector.square_sum / 7 - (corrector.rate_sum / 7).square() < 0).any()
    variance = corrector.moments(nodes)[1]
    assert (variance >= 0).all()
    torch.testing.assert_close(variance, torch.zeros_like(variance), rtol=0, atol=1e-5)


def test_state_moves_in_training_only_unless_asked():
    batch = next(updates(1, 4, 1, 3, seed=0))
    for asked in (False, True):
        corrector = fixed(0.5, update_in_eval=asked).eval()
        corrector.update(**batch)
        assert bool(corrector.count.any()) == asked
        corrector(measured=batch["corrected"], **{key: value for key, value in batch.items() if key != "corrected"})
        assert float(corrector.count.sum()) == asked * int(batch["pending"].sum())


def test_reset_state_forgets_all_but_the_gate():
    corrector = trained(0.3, num_components=2, track_variance=True)
    fresh = fixed(0.3, num_components=2, track_variance=True)
    assert any(not torch.equal(corrector.state_dict()[name], fresh.state_dict()[name]) for name in STATE)
    corrector.reset_state()
    for name, value in fresh.state_dict().items():
        assert torch.equal(corrector.state_dict()[name], value)


@pytest.mark.parametrize("learnable", [True, False])
def test_state_dict_round_trip_and_copies(learnable):
    corrector = PRESCorrector(
        6, 3, track_variance=True, gamma_learnable=learnable, rate="time", time_scale=7.0
    ).double()
    for batch in updates(6, 5, 1, 3, seed=1):
        corrector.update(**batch)
    with torch.no_grad():
        corrector.gate.fill_(0.25)
    other = PRESCorrector(track_variance=True, gamma_learnable=learnable, rate="time").double()
    other.materialize(6, 3)
    other.load_state_dict(corrector.state_dict())
    assert [name for name, _ in corrector.named_parameters()] == (["gate"] if learnable else [])
    batch = next(updates(1, 4, 1, 3, seed=9))
    measured = batch.pop("corrected")
    expected = corrector(measured=measured, **batch)
    assert not torch.equal(expected, measured)
    for twin in (other, copy.deepcopy(corrector), pickle.loads(pickle.dumps(corrector))):
        assert torch.equal(twin(measured=measured, **batch), expected)


def test_sizes_may_come_later():
    corrector = PRESCorrector()
    assert corrector._record["init_args"] == {}
    node, pending, memory = torch.tensor([3]), torch.tensor([True]), torch.ones(1, 2)
    for call in (corrector, corrector.update):
        with pytest.raises(ValueError, match="PRESCorrector .*num_nodes and memory_dim"):
            call(node, memory, memory, pending)
    corrector.reset_state()
    corrector.materialize(5, 2, time_scale=60.0)
    assert corrector.rate_sum.shape == (5, 1, 2)
    assert float(corrector.time_scale) == 60
    corrector.update(node, memory, 2 * memory, pending)
    corrector.materialize(5, 2)  # again: what was observed stays
    assert float(corrector.count[3]) == 1
    with pytest.raises(ValueError, match="num_nodes=5 .* 6: .*num_nodes"):
        corrector.materialize(6, 2)
    own = PRESCorrector(memory_dim=2, time_scale=3.0)
    own.materialize(5, 2, time_scale=60.0)
    assert float(own.time_scale) == 3
    with pytest.raises(ValueError, match="memory_dim=4"):
        PRESCorrector(memory_dim=4).materialize(5, 2)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_memory_is_tracked_in_single(kind):
    corrector = PRESCorrector(1, 2, gamma_init=0.5)
    node, pending = torch.tensor([0]), torch.tensor([True])
    before, after = torch.zeros(1, 2), torch.full((1, 2), 0.1, dtype=kind)
    for _ in range(3000):  # counting in half precision would stop at 2048
        corrector.update(node, before, after, pending)
    assert float(corrector.count) == 3000
    assert corrector(node, before, after, pending).dtype == kind
    assert float(corrector.moments(node)[0][0, 0, 0]) == pytest.approx(0.1, rel=1e-2)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_corrector_in_half_precision_counts_in_single(kind):
    corrector = PRESCorrector(1, 2, gamma_init=0.5, rate="time", time_scale=86401.0, track_variance=True).to(kind)
    node, pending = torch.tensor([0]), torch.tensor([True])
    before, after = torch.zeros(1, 2, dtype=kind), torch.ones(1, 2, dtype=kind)
    elapsed = torch.tensor([86401.0], dtype=torch.float64)
    corrector.count += 2500  # counting in half precision stops at 256 or 2048
    for _ in range(3):
        corrector.update(node, before, after, pending, elapsed=elapsed)
    assert float(corrector.count) == 2503
    assert (float(corrector.weight_sum), float(corrector.time_scale)) == (3, 86401)
    corrected = corrector(node, after, after, pending, elapsed=elapsed)  # 1 measured, 1 + 1 expected
    assert corrected.dtype == kind
    assert corrected.tolist() == [[1.5, 1.5]]
    assert corrector.double().rate_sum.dtype == torch.float64
    assert corrector.to(kind).rate_sum.dtype == torch.float32


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    gamma=st.floats(0, 1),
    rate=st.sampled_from(RATES),
    estimator=st.sampled_from(ESTIMATORS),
)
def test_corrections_lie_between_and_do_not_depend_on_the_order_of_nodes(seed, gamma, rate, estimator):
    corrector = trained(gamma, rate=rate, estimator=estimator)
    batch = next(updates(1, 5, 1, 3, seed=seed))
    measured = batch.pop("corrected")
    corrected = corrector(measured=measured, **batch)
    predicted, _ = corrector.predict(
        batch["n_id"], batch["previous"], elapsed=batch["elapsed"], num_events=batch["num_events"]
    )
    low, high = torch.minimum(predicted, measured), torch.maximum(predicted, measured)
    assert (corrected >= low - 1e-9).all()
    assert (corrected <= high + 1e-9).all()
    assert torch.equal(corrected[~batch["pending"]], measured[~batch["pending"]])
    order = torch.randperm(5)
    mixed = corrector(measured=measured[order], **{name: value[order] for name, value in batch.items()})
    assert torch.equal(mixed, corrected[order])
    # the whole memory space may be moved: only changes are tracked
    shifted = batch | {"previous": batch["previous"] + 3}
    torch.testing.assert_close(corrector(measured=measured + 3, **shifted), corrected + 3, rtol=0, atol=1e-8)


@pytest.mark.parametrize("mode", ["global", "node"])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
def test_coherence_loss_equals_loops(mode, share):
    previous, corrected = torch.randn(2, 12, 4, dtype=torch.float64)
    mask = torch.rand(12) < share
    previous[3] = 0
    expected = reference.coherence_loss(previous.tolist(), corrected.tolist(), mask.tolist(), mode)
    assert float(memory_coherence_loss(previous, corrected, mask, mode)) == pytest.approx(expected, abs=1e-12)
    full = reference.coherence_loss(previous.tolist(), corrected.tolist(), [True] * 12, mode)
    assert float(memory_coherence_loss(previous, corrected, mode=mode)) == pytest.approx(full, abs=1e-12)


@pytest.mark.parametrize("mode", ["global", "node"])
def test_coherence_loss_of_known_memories(mode):
    previous = torch.randn(5, 4, dtype=torch.float64)
    for factor in (1e-3, 1.0, 50.0):
        assert float(memory_coherence_loss(previous, factor * previous, mode=mode)) == pytest.approx(0, abs=1e-12)
        assert float(memory_coherence_loss(previous, -factor * previous, mode=mode)) == pytest.approx(2)
    turned = torch.stack([-previous[:, 1], previous[:, 0], -previous[:, 3], previous[:, 2]], 1)
    assert float(memory_coherence_loss(previous, turned, mode=mode)) == pytest.approx(1)


@pytest.mark.parametrize("mode", ["global", "node"])
def test_coherence_loss_of_memory_without_direction(mode):
    corrected = torch.randn(5, 4, requires_grad=True)
    some = torch.randn(5, 4)
    for previous, mask in [(torch.zeros(5, 4), None), (some, torch.zeros(5, dtype=torch.bool)), (some[:0], None)]:
        after = corrected[: len(previous)]
        loss = memory_coherence_loss(previous, after, mask, mode)
        assert loss == 0
        assert not torch.autograd.grad(loss, corrected)[0].any()
    nothing = torch.zeros(5, 4, requires_grad=True)  # an update to zero has no direction either: half way round
    loss = memory_coherence_loss(some, nothing, mode=mode)
    assert loss == 1
    assert torch.autograd.grad(loss, nothing)[0].isfinite().all()


@pytest.mark.parametrize("mode", ["global", "node"])
def test_coherence_loss_changes_nothing_and_has_its_gradient(mode):
    previous, corrected = torch.randn(2, 6, 3, dtype=torch.float64)
    previous[2] = 0
    mask = torch.tensor([True, True, True, False, True, True])
    before = previous.clone(), corrected.clone()
    corrected.requires_grad_()
    constant = previous.clone().requires_grad_()
    loss = memory_coherence_loss(constant, corrected, mask, mode)
    assert torch.autograd.grad(loss, [constant, corrected], allow_unused=True)[0] is None
    assert torch.autograd.gradcheck(lambda after: memory_coherence_loss(previous, after, mask, mode), (corrected,))
    (gradient,) = torch.autograd.grad(memory_coherence_loss(previous, corrected, mask, mode), corrected)
    assert not gradient[[2, 3]].any()
    assert gradient[[0, 1, 4, 5]].any(1).all()
    assert torch.equal(previous, before[0])
    assert torch.equal(corrected.detach(), before[1])


@pytest.mark.parametrize("mode", ["global", "node"])
def test_coherence_loss_trains_the_updater_through_the_corrector(mode):
    corrector = PRESCorrector(6, 3).double()
    for batch in updates(6, 5, 1, 3, seed=1):
        corrector.update(**batch)
    cell = nn.GRUCell(4, 3).double()
    previous, messages = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)
    n_id, pending = torch.tensor([0, 2, 3, 5]), torch.tensor([True, True, False, True])

    def loss(*_):
        corrected = corrector(n_id, previous, cell(messages, previous), pending)
        return memory_coherence_loss(previous, corrected, pending, mode)

    weights = [*cell.parameters(), corrector.gate]
    for gradient in torch.autograd.grad(loss(), weights):
        assert gradient.abs().max() > 1e-6
    assert torch.autograd.gradcheck(loss, weights)


@pytest.mark.parametrize("mode", ["global", "node"])
def test_coherence_loss_of_half_precision_does_not_overflow(mode):
    corrected = torch.full((8, 64), 300.0, dtype=torch.float16, requires_grad=True)  # squares exceed 65504
    loss = memory_coherence_loss(torch.full((8, 64), 300.0, dtype=torch.float16), corrected, mode=mode)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.autograd.grad(loss, corrected)[0].isfinite().all()


@every_form
def test_no_value_is_read_by_the_host(rate, estimator):
    """Fake tensors have no values: whatever would wait for a device raises."""
    with FakeTensorMode():
        corrector = PRESCorrector(
            6, 3, num_components=2, rate=rate, estimator=estimator, track_variance=True, sample_prediction=True
        )
        n_id, pending, memory = torch.arange(4), torch.ones(4, dtype=torch.bool), torch.randn(4, 3, requires_grad=True)
        kwargs = {name: torch.arange(4) for name in ("elapsed", "num_events")} | {"type_counts": torch.ones(4, 2)}
        for corrector.sample_prediction in (True, False):
            corrected = corrector(n_id, torch.randn(4, 3), memory, pending, **kwargs)
        loss = sum(memory_coherence_loss(torch.randn(4, 3), corrected, pending, mode) for mode in ("global", "node"))
        loss.backward()
        corrector.update(n_id, torch.randn(4, 3), corrected, pending, **kwargs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"rate": "events"}, "rate='events'"),
        ({"estimator": "em"}, "estimator='em'"),
        ({"num_components": 0}, r"num_components=0"),
        ({"gamma_init": 1.0}, "gamma_init=1.0.*gamma_learnable=False"),
        ({"gamma_init": -0.1, "gamma_learnable": False}, "gamma_init=-0.1"),
        ({"gamma_init": math.nan}, "gamma_init=nan"),
        ({"time_scale": 0.0}, "time_scale=0.0"),
        ({"time_scale": math.inf}, "time_scale=inf"),
        ({"step_min": 0.0}, "step_min=0.0, step_max=5.0"),
        ({"step_max": 0.01}, "step_max=0.01"),
        ({"sample_prediction": True}, "track_variance=True"),
        ({"num_nodes": 0, "memory_dim": 2}, "num_nodes=0"),
        ({"num_nodes": 2, "memory_dim": 0}, "memory_dim=0"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PRESCorrector(**kwargs)


def test_wrong_inputs():
    node, pending, memory = torch.tensor([0]), torch.tensor([True]), torch.zeros(1, 3)
    corrector = PRESCorrector(4, 3, num_components=2)
    with pytest.raises(ValueError, match=r"memory is \(1, 2\), previous \(1, 3\)"):
        corrector(node, memory, memory[:, :2], pending)
    with pytest.raises(ValueError, match=r"memory is \(2, 3\) .*\(1, 3\)"):
        corrector(node, memory.repeat(2, 1), memory.repeat(2, 1), pending)
    with pytest.raises(ValueError, match=r"type_counts is \(1, 1\); .*num_components=2"):
        corrector(node, memory, memory, pending, type_counts=torch.ones(1, 1))
    with pytest.raises(ValueError, match="num_components=2.*type_counts"):
        corrector.update(node, memory, memory, pending)
    for rate, name in (("time", "elapsed"), ("event", "num_events")):
        with pytest.raises(ValueError, match=f"rate=.*{name}"):
            PRESCorrector(4, 3, rate=rate)(node, memory, memory, pending)
    with pytest.raises(ValueError, match=r"previous is .*mask \(2,\)"):
        memory_coherence_loss(memory, memory, pending.repeat(2))
    with pytest.raises(ValueError, match="mode='batch'"):
        memory_coherence_loss(memory, memory, mode="batch")


# beyond the paper: when to correct, and sums that forget


def observed(corrector, changes):
    """Let node 0 move by each of the changes, as updates of their own."""
    seen = torch.ones(1, dtype=torch.bool)
    for change in changes:
        start = torch.zeros(1, 3, dtype=torch.float64)
        corrector.update(torch.tensor([0]), start, start + change, seen, num_events=torch.tensor([1]))


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_sums_that_forget_are_weighted_means(decay):
    corrector, changes = fixed(0.5, decay=decay, track_variance=True), [4.0, 2.0, 1.0, 8.0]
    observed(corrector, changes)
    weights = [decay**age for age in range(len(changes))][::-1]
    mean = sum(w * x for w, x in zip(weights, changes, strict=True)) / sum(weights)
    square = sum(w * x * x for w, x in zip(weights, changes, strict=True)) / sum(weights)
    found, variance = corrector.moments(torch.tensor([0, 1]))
    assert found[0, 0].tolist() == pytest.approx([mean] * 3)
    assert variance[0, 0].tolist() == pytest.approx([square - mean * mean] * 3)
    assert float(corrector.count[0, 0]) == pytest.approx(sum(weights))
    assert not found[1].any()


def test_nodes_without_pending_events_forget_nothing():
    corrector = fixed(0.5, decay=0.5)
    observed(corrector, [4.0, 2.0])
    before = corrector.rate_sum.clone()
    none = torch.zeros(2, dtype=torch.bool)
    corrector.update(torch.tensor([0, 1]), *(torch.ones(2, 3, dtype=torch.float64) for _ in range(2)), none)
    assert torch.equal(corrector.rate_sum, before)


def test_only_nodes_with_something_to_mend_or_known_well_enough_are_corrected():
    nodes, seen = torch.tensor([0, 0]), torch.ones(2, dtype=torch.bool)
    previous, measured = torch.zeros(2, 3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    corrector = fixed(0.5, min_events=2)
    observed(corrector, [4.0])
    found = corrector(nodes, previous, measured, seen, num_events=torch.tensor([1, 2]))
    assert torch.equal(found, torch.tensor([[1.0] * 3, [2.5] * 3], dtype=torch.float64))
    with pytest.raises(ValueError, match="min_events=2.*num_events"):
        corrector(nodes, previous, measured, seen)
    corrector = fixed(0.5, min_updates=2)
    observed(corrector, [4.0])
    assert torch.equal(corrector(nodes, previous, measured, seen), measured)
    observed(corrector, [4.0])
    assert torch.equal(corrector(nodes, previous, measured, seen), torch.full_like(measured, 2.5))


@pytest.mark.parametrize("options", [{"decay": 0.0}, {"decay": 1.1}, {"min_events": 0}, {"min_updates": 0}])
def test_wrong_limits(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}="):
        PRESCorrector(2, 3, **options)


def test_nodes_and_columns_that_do_not_fit():
    """Compiled loops would read and write memory of others; one number for all nodes would be broadcast."""
    corrector = PRESCorrector(3, 2, rate="time", min_events=2)
    node, before, seen = torch.tensor([0, 2]), torch.zeros(2, 2), torch.tensor([True, True])
    given = {"elapsed": torch.ones(2), "num_events": torch.tensor([2, 2])}
    corrector.update(node, before, before + 1, seen, elapsed=given["elapsed"])
    for call in (corrector, corrector.update):
        with pytest.raises((IndexError, RuntimeError), match="3"):
            call(torch.tensor([0, 3]), before, before, seen, **given)
    for wrong, said in [
        ({"n_id": node.float()}, "n_id is torch.float32"),
        ({"pending": seen[:1]}, r"pending has shape \(1,\)"),
        ({"pending": seen.long()}, "pending is torch.int64"),
        ({"elapsed": torch.ones(2, 1)}, r"elapsed has shape \(2, 1\)"),
        ({"num_events": torch.tensor([2])}, r"num_events has shape \(1,\)"),
    ]:
        with pytest.raises(ValueError, match=said):
            corrector(**({"n_id": node, "previous": before, "measured": before, "pending": seen, **given} | wrong))
    with pytest.raises(ValueError, match=r"corrected memory is \(1, 2\)"):
        corrector.update(node, before, before[:1], seen, **given)


def test_missing_memories_and_masks_of_numbers_are_not_left_out():
    before = torch.tensor([[1.0, 0.0], [math.nan, 1.0]])
    for mode in ("global", "node"):
        assert memory_coherence_loss(before, torch.ones(2, 2), mode=mode).isnan()
    with pytest.raises(ValueError, match="mask is torch.int64"):
        memory_coherence_loss(before, before, torch.tensor([1, 0]))
