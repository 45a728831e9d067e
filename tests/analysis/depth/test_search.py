"""Searches of paths: action algebra, books of the tree, budgets, bounds."""

import math

import numpy as np
import pytest

from graphseq.analysis import LayerPath, PathSearchResult, PathTreeSearch, RandomPathSearch, RepeatLayers, SkipLayers

ORIGINAL = LayerPath.original(6)


def share_of_goals(path):
    """Reward of a path: how many of three changes were made."""
    return ((1 not in path) + (4 not in path) + (path.count(2) == 2)) / 3


def first_hit(result, reward=1.0):
    """Number of paths run until the first of the reward; more than all if there is none."""
    hits = [place for place, found in enumerate(result.rewards.values()) if found >= reward]
    return hits[0] + 1 if hits else len(result.rewards) + 1


def test_skip_and_repeat():
    assert ORIGINAL.skip(1, 3) == (0, 4, 5)
    assert ORIGINAL.repeat(1, 3, 2) == (0, 1, 2, 3, 1, 2, 3, 1, 2, 3, 4, 5)
    path = LayerPath([3, 3, 0, 1, 5])
    assert LayerPath.parse(str(path)) == path
    assert (path.length, path.unique, str(path)) == (5, 4, "3,3,0-1,5")
    assert isinstance(path.skip(0, 1), LayerPath)


def test_number_of_first_actions():
    n, longest = 6, 12
    sizes = range(1, 5)
    skips = sum(n - k + 1 for k in sizes)
    repeats = sum(n - k + 1 for k in sizes for r in range(1, 5) if n + k * r <= longest)
    found = PathTreeSearch().neighbours(ORIGINAL, n)
    assert len(found) == len(set(found)) == skips + repeats  # from the original path no two actions agree
    assert ORIGINAL not in found
    assert len(PathTreeSearch([SkipLayers()], min_length=4).neighbours(ORIGINAL, n)) == 6 + 5
    assert SkipLayers()(LayerPath([2])) == []
    brute = {ORIGINAL[:a] + ORIGINAL[b:] for a in range(6) for b in range(a + 1, min(a + 4, 6) + 1)}
    assert set(SkipLayers()(ORIGINAL)) == brute


@pytest.mark.parametrize("search", [PathTreeSearch(budget=150, seed=3), RandomPathSearch(budget=150, seed=3)])
def test_each_path_is_run_once_and_within_its_bounds(search):
    calls = []
    result = search.search(lambda path: calls.append(path) or share_of_goals(path), 6)
    assert len(calls) == len(set(calls)) == len(result.rewards) == 150
    assert calls == list(result.rewards)
    assert calls[0] == ORIGINAL
    assert result.original == share_of_goals(ORIGINAL) == 0
    assert all(1 <= len(path) <= 12 and max(path) < 6 for path in calls)
    again = search.search(share_of_goals, 6)
    assert again == result  # the same choices for the same seed
    other = type(search)(budget=150, seed=4).search(share_of_goals, 6)
    assert list(other.rewards) != calls


def test_books_of_the_tree():
    result = PathTreeSearch(budget=120, seed=1).search(share_of_goals, 6)
    assert result.visits[ORIGINAL] == 120
    assert result.visits.keys() == result.rewards.keys()
    assert result.totals[ORIGINAL] == pytest.approx(sum(result.rewards.values()))
    for path, visits in result.visits.items():
        assert 0 <= result.totals[path] <= visits
        assert result.totals[path] >= result.rewards[path] or math.isclose(result.totals[path], result.rewards[path])


def test_bound_and_choice_by_hand():
    search = PathTreeSearch(exploration=2.0, length_penalty=0.3)
    by_hand = 3 / 4 + 2 * math.sqrt(math.log(9) / 4) - 0.3 * 5 / 6
    assert search.bound(3.0, 4, 9, 5, 6) == pytest.approx(by_hand, abs=1e-15)
    # The root has two layers. Its first simulation is its own, the second adds a child, and so does the third, as
    # ceil(sqrt(2)) = 2; the fourth goes below the child of the higher bound, as ceil(sqrt(3)) = 2 are there.
    rewards = {LayerPath([0, 1]): 0.0, LayerPath([0]): 1.0, LayerPath([1]): 0.2}
    greedy = PathTreeSearch(
        [SkipLayers(), RepeatLayers([1], [1])], budget=4, exploration=0.1, length_penalty=0.0, random_share=0.0, seed=0
    )
    result = greedy.search(lambda path: rewards.get(path, 0.5), 2)
    first, second, third = list(result.rewards)[1:]
    better = max((first, second), key=lambda path: result.rewards[path])  # one visit each: the same spread
    assert result.visits[better] == 2
    assert result.totals[better] == pytest.approx(result.rewards[better] + result.rewards[third])
    assert third in greedy.neighbours(better, 2)


def test_search_ends_with_the_paths():
    wide = PathTreeSearch([SkipLayers()], budget=1000, widening=1.0).search(lambda path: 0.5, 5)
    narrow = PathTreeSearch([SkipLayers()], budget=1000, widening=0.2).search(lambda path: 0.5, 5)
    assert len(wide.rewards) == len(narrow.rewards) == 2**5 - 1  # all that is no empty path
    assert len(RandomPathSearch([SkipLayers()], budget=1000).search(lambda path: 0.5, 5).rewards) == 31


def test_rewards_guide_the_tree():
    few = [SkipLayers([1, 2]), RepeatLayers([1], [1])]  # of a public implementation

    def share(path):
        return ((1 not in path) + (4 not in path) + (path.count(2) == 2) + (path.count(0) == 2)) / 4

    tree = [PathTreeSearch(few, budget=250, seed=seed).search(share, 6) for seed in range(10)]
    guess = [RandomPathSearch(few, budget=250, seed=seed).search(share, 6) for seed in range(10)]
    assert sum(first_hit(a) < first_hit(b) for a, b in zip(tree, guess, strict=True)) >= 8
    single = [PathTreeSearch(budget=100, seed=seed).search(lambda path: float(3 not in path), 6) for seed in range(10)]
    assert all(first_hit(result) <= 100 for result in single)


def test_larger_penalty_shortens_the_best_paths():
    def mean_length(penalty):
        results = [
            PathTreeSearch(budget=100, length_penalty=penalty, seed=seed).search(
                lambda path, goal=seed % 6: float(goal not in path), 6
            )
            for seed in range(8)
        ]
        return sum(len(result.best) for result in results) / len(results)

    lengths = [mean_length(penalty) for penalty in (0.0, 1.0, 10.0)]
    assert lengths[0] >= lengths[1] >= lengths[2]
    assert lengths[0] > lengths[2]


def test_pareto_paths_are_not_dominated():
    result = RandomPathSearch(budget=80, seed=2).search(share_of_goals, 6)
    assert ORIGINAL in result.rewards
    for path, reward in result.pareto:
        for other, found in result.rewards.items():
            assert not (len(other) <= len(path) and found >= reward and (len(other), found) != (len(path), reward))
    assert result.pareto[-1] == (result.best, result.rewards[result.best])
    tie = PathSearchResult(2, {LayerPath([0, 1]): 1.0, LayerPath([1]): 1.0, LayerPath([0]): 1.0})
    assert tie.pareto == [(LayerPath([1]), 1.0)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LayerPath([]), "empty"),
        (lambda: LayerPath([0, -1]), "-1"),
        (lambda: LayerPath.parse("3-1"), "3-1"),
        (lambda: ORIGINAL.skip(4, 3), "start is 4 and size 3"),
        (lambda: ORIGINAL.skip(0, 6), "size is 6"),
        (lambda: ORIGINAL.repeat(0, 1, 0), "count is 0"),
        (lambda: SkipLayers([0]), "sizes is"),
        (lambda: RepeatLayers([1], [0]), "counts is"),
        (lambda: PathTreeSearch([]), "actions is empty"),
        (lambda: PathTreeSearch(budget=0), "budget is 0"),
        (lambda: PathTreeSearch(budget=2.5), "budget is 2.5"),
        (lambda: PathTreeSearch(exploration=float("nan")), "exploration is nan"),
        (lambda: PathTreeSearch(length_penalty=-1), "length_penalty is -1"),
        (lambda: PathTreeSearch(random_share=2), "random_share is 2"),
        (lambda: PathTreeSearch(widening=0), "widening is 0"),
        (lambda: PathTreeSearch(max_length=0.5), "max_length is 0.5"),
        (lambda: RandomPathSearch(min_length=0), "min_length is 0"),
        (lambda: RandomPathSearch(max_actions=0), "max_actions is 0"),
        (lambda: PathTreeSearch(min_length=3).search(share_of_goals, 2), "num_layers is 2"),
        (lambda: PathTreeSearch().search(lambda path: 1.5, 2), "path 0-1 is 1.5"),
        (lambda: RandomPathSearch().search(lambda path: float("nan"), 2), "path 0-1 is nan"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_numbers_of_layers_are_whole():
    with pytest.raises(TypeError, match=r"1\.0"):
        LayerPath([0, 1.0])
    with pytest.raises(TypeError, match="LayerPath.parse"):
        LayerPath("0-1")
    path = LayerPath(np.array([0, 2]))
    assert path == (0, 2)
    assert str(path) == "0,2"


def test_rewards_and_actions_of_other_types():
    with pytest.raises(TypeError, match="path 0-1 is None"):
        PathTreeSearch().search(lambda path: None, 2)
    with pytest.raises(TypeError, match=r"actions holds .*SkipLayers"):
        PathTreeSearch([SkipLayers])
