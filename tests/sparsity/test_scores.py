import numpy as np
import pytest
import torch

from graphseq.sparsity import (
    RunningCorrelation,
    distance_score,
    drop_fraction,
    gradient_score,
    gradual_sparsity,
    group_labels,
    keep_highest,
    magnitude_score,
    masked_linear,
    movement_score,
    random_score,
    rewire_mask,
)
from tests.reference import sparse


def batches(count=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for number in range(count):
        pre = torch.randn(10 + number, 4, generator=generator) * 3 + 50 + number  # means that differ between batches
        post = torch.randn(10 + number, 3, generator=generator)
        post[:, 1] -= 0.2 * pre[:, 2]
        pre[:, 3] = 7.0  # never changes
        yield pre, post


def test_correlation_of_all_batches_is_that_of_numpy():
    statistics = RunningCorrelation(4, 3)
    for pre, post in batches():
        statistics.update(pre, post)
    pre, post = (torch.cat(parts).double().numpy() for parts in zip(*batches(), strict=True))
    expected = np.corrcoef(post.T, pre[:, :3].T)[:3, 3:]
    found = statistics.correlation()
    torch.testing.assert_close(found[:, :3].double(), torch.from_numpy(expected), atol=2e-5, rtol=0)
    assert (found[:, 3] == 0).all()  # not NaN


def test_decay_weighs_recent_batches_and_equal_batches_change_nothing():
    forgetful, plain = RunningCorrelation(4, 3, decay=0.5), RunningCorrelation(4, 3)
    pre, post = next(batches())
    for _ in range(3):
        forgetful.update(pre, post)
        plain.update(pre, post)
    torch.testing.assert_close(forgetful.correlation(), plain.correlation())
    for _ in range(24):
        forgetful.update(pre, pre[:, :3])
        plain.update(pre, pre[:, :3])
    assert (1 - forgetful.correlation().diagonal()).abs().max() < 0.02
    # two batches: the second weighs a half
    two = RunningCorrelation(4, 3, decay=0.5)
    two.update(pre, post)
    two.update(pre + 1, post)
    torch.testing.assert_close(two.pre_mean, pre.mean(0) + 0.5)
    two.reset()
    assert two.count == 0
    assert not two.covariance.any()


def test_correlation_of_sequences_counts_all_axes_but_the_last():
    flat, deep = RunningCorrelation(4, 3), RunningCorrelation(4, 3)
    pre, post = next(batches())
    flat.update(pre, post)
    deep.update(pre.view(2, 5, 4), post.view(2, 5, 3))
    assert torch.equal(flat.covariance, deep.covariance)


def test_simple_scores():
    weight, grad = torch.tensor([1.0, -2.0]), torch.tensor([-3.0, -1.0])
    assert magnitude_score(weight).tolist() == [1, 2]
    assert gradient_score(grad).tolist() == [3, 1]
    assert movement_score(weight, grad).tolist() == [3, -2]
    moved = weight - 0.1 * grad
    assert torch.equal(movement_score(weight, grad) > 0, moved.abs() > weight.abs())
    one, two = (random_score(weight, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)


def test_kept_weights_are_counted_exactly_with_ties():
    score = torch.ones(4, 5)
    assert keep_highest(score, 0.35).sum() == 7
    among = torch.zeros(4, 5, dtype=torch.bool)
    among[2] = True
    assert torch.equal(keep_highest(score, 0.25, among), among)
    with pytest.raises(ValueError, match="10 weights, where 5"):
        keep_highest(score, 0.5, among)
    with pytest.raises(ValueError, match="density is 2"):
        keep_highest(score, 2)


def test_schedules():
    assert [drop_fraction(t, 0.3, "cosine") for t in (0, 1)] == [0.3, 0]
    assert drop_fraction(0.25, 0.4, "linear") == pytest.approx(0.3)
    assert drop_fraction(0.9, 0.4) == 0.4
    course = [gradual_sparsity(t / 10, 0.9, 0.1) for t in range(11)]
    assert course == sorted(course)
    assert course[0] == pytest.approx(0.1)
    assert course[-1] == 0.9
    assert gradual_sparsity(0.5, 0.8, power=1) == pytest.approx(0.4)
    for call in (lambda: drop_fraction(1.1, 0.3), lambda: gradual_sparsity(-0.1, 0.5)):
        with pytest.raises(ValueError, match="progress"):
            call()
    with pytest.raises(ValueError, match="decay"):
        drop_fraction(0.5, 0.3, "other")
    with pytest.raises(ValueError, match="power"):
        gradual_sparsity(0.5, 0.3, power=0)


def test_rewiring_takes_the_lowest_and_adds_the_highest():
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(6, 7, generator=generator) < 0.4
    prune, grow = torch.rand(2, 6, 7, generator=generator)
    after, pruned, grown = rewire_mask(mask, prune, grow, 0.3)
    count = int(0.3 * int(mask.sum()))
    gone, come = sparse.rewired(*(value.flatten().tolist() for value in (mask, prune, grow)), count)
    assert set(pruned.flatten().nonzero().flatten().tolist()) == gone
    assert set(grown.flatten().nonzero().flatten().tolist()) == come
    assert torch.equal(after, (mask & ~pruned) | grown)
    assert not (pruned & grown).any()


def test_budgets_keep_their_counts_and_full_ones_do_not_change():
    generator = torch.Generator().manual_seed(0)
    budget = torch.arange(60).view(6, 10) // 10
    mask = torch.rand(6, 10, generator=generator) < torch.linspace(0, 1, 6)[:, None]
    assert mask[5].all()
    assert not mask[0].any()
    seen = 0
    for _ in range(20):
        scores = torch.rand(2, 6, 10, generator=generator)
        after, pruned, grown = rewire_mask(mask, *scores, 0.1, budget, generator)
        assert torch.equal(after.sum(1), mask.sum(1))
        assert int(pruned.sum()) == int(grown.sum()) == int(0.1 * int(mask[1:5].sum()) + 1e-9)
        seen |= int((pruned.any(1) * 2 ** torch.arange(6)).sum())
        mask = after
    assert seen == 2 + 4 + 8 + 16  # every budget with room had its turn although a tenth of it is below 1


def test_equal_scores_are_ordered_at_random_and_by_the_generator():
    mask = torch.arange(100) < 50
    same = torch.zeros(100)

    def rewired(seed):
        return rewire_mask(mask, same, same, 0.2, generator=torch.Generator().manual_seed(seed)).mask

    assert torch.equal(rewired(1), rewired(1))
    assert not torch.equal(rewired(1), rewired(2))


def test_a_mixture_of_scores_prunes_a_part_by_each():
    mask = torch.ones(2, 30, dtype=torch.bool)
    mask[1] = False
    scores = [torch.roll(torch.arange(60.0), 10 * part).view(2, 30) for part in range(3)]
    _, pruned, _ = rewire_mask(mask, scores, torch.zeros(2, 30), 0.2)
    assert pruned[0].nonzero().flatten().tolist() == [0, 1, 10, 11, 20, 21]


def test_wrong_rewiring():
    mask = torch.ones(3, dtype=torch.bool)
    with pytest.raises(ValueError, match="fraction is 1.5"):
        rewire_mask(mask, torch.ones(3), torch.ones(3), 1.5)
    with pytest.raises(ValueError, match="grow_score"):
        rewire_mask(mask, torch.ones(3), torch.ones(4), 0.5)
    with pytest.raises(ValueError, match="decay"):
        RunningCorrelation(2, 2, decay=1.0)


def test_shapes_and_types_of_weights():
    weight = torch.rand(4, 6)
    for call, said in [
        (lambda: movement_score(weight, weight[:1]), r"grad has shape \(1, 6\)"),
        (lambda: distance_score(weight, weight[0]), r"start has shape \(6,\)"),
        (lambda: masked_linear(weight, weight, weight[:1] > 0), r"mask has shape \(1, 6\)"),
        (lambda: rewire_mask((weight > 0.5).long(), weight, weight, 0.3), "mask is torch.int64"),
        (lambda: group_labels(6, 2.0), r"groups is 2\.0"),
    ]:
        with pytest.raises(ValueError, match=said):
            call()
