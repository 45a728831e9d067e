"""Rewards of paths, and the report of searches by an oracle."""

import math

import pytest
import torch

from graphseq.analysis import (
    LayerPath,
    PathSearchResult,
    certainty_reward,
    margin_reward,
    oracle_reward,
    oracle_search_report,
)


def test_rewards_by_hand():
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]])
    p = [[math.exp(v) / sum(math.exp(w) for w in row) for v in row] for row in logits.tolist()]
    margin = sum(sorted(row)[-1] - sorted(row)[-2] for row in p) / 2
    entropy = -sum(v * math.log(v) for row in p for v in row) / 2
    assert margin_reward(logits) == pytest.approx(margin, abs=1e-12)
    assert certainty_reward(logits) == pytest.approx(1 - entropy / math.log(3), abs=1e-12)
    assert oracle_reward(logits, torch.tensor([0, 2])) == 0.5
    assert oracle_reward(logits[0], torch.tensor(0)) == 1.0
    assert margin_reward(logits[1]) > margin_reward(logits[0])
    assert certainty_reward(torch.zeros(4)) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match=r"\(2, 5, 3\)"):
        margin_reward(torch.zeros(2, 5, 3))
    with pytest.raises(ValueError, match=r"target is \(3,\)"):
        oracle_reward(logits, torch.zeros(3, dtype=torch.int64))


def test_report_by_hand():
    def paths(found):
        return PathSearchResult(3, {LayerPath.parse(text): reward for text, reward in found.items()})

    report = oracle_search_report([
        paths({"0-2": 1.0, "0": 0.0, "1-2": 1.0}),  # right, and by a shorter path
        paths({"0-2": 1.0, "0": 0.0}),  # right, by no shorter path
        paths({"0-2": 0.0, "0-1,0-2": 1.0}),  # wrong, turned right
        paths({"0-2": 0.0, "0": 0.0}),  # wrong
    ])  # fmt: skip
    assert (report.num_inputs, report.accuracy, report.oracle_accuracy) == (4, 0.5, 0.75)
    assert (report.shorter, report.repaired) == (0.5, 0.5)
    assert report.mean_length == (2.5, 5.0)
    assert report.mean_unique == (2.5, 3.0)
    assert report.skip_rate == pytest.approx((1 / 3, 0, 0))
    assert report.repeat_rate == pytest.approx((1 / 3, 1 / 3, 0))
    counts = [1 + 2, 1 + 1 + 2, 1 + 1 + 1]
    assert report.usage_entropy == pytest.approx(-sum(c / 10 * math.log(c / 10) for c in counts))
    assert report.pareto == ((2, 0.25), (3, 0.5), (5, 0.75))
    assert "oracle" in report.table()
    lost = oracle_search_report([paths({"0-2": 0.0})])
    assert lost.oracle_accuracy == lost.usage_entropy == lost.repaired == 0
    assert math.isnan(lost.shorter)


def test_refused_results():
    with pytest.raises(ValueError, match=r"rewards are 0\.5"):
        oracle_search_report([PathSearchResult(1, {LayerPath([0]): 0.5})])
    with pytest.raises(ValueError, match=r"depths \[1, 2\]"):
        oracle_search_report([PathSearchResult(n, {LayerPath.original(n): 1.0}) for n in (1, 2)])
    with pytest.raises(ValueError, match=r"depths \[\]"):
        oracle_search_report([])
