"""Effects of the analysis of trained networks: the searches that are compared."""

import pytest
import torch

from graphseq.bench import load_experiment
from graphseq.models import SequenceTagger
from graphseq.nn import BlockStack, CausalAttention, SequenceBlock


def test_searches_of_chains_share_the_network_and_the_number_of_paths(monkeypatch):
    from experiments.analysis import cola

    torch.manual_seed(0)
    stack = BlockStack([SequenceBlock(CausalAttention(8, 2))], 3)
    network = SequenceTagger(10, vocab_size=10, hidden_channels=8, recurrent=stack).eval()
    words, lengths = torch.randint(10, (6, 5)), torch.tensor([5, 4, 3, 5, 2, 4])
    with torch.no_grad():
        answers = network(words, lengths).argmax(-1).gather(1, lengths[:, None] - 1)[:, 0]
    answers[:2] = (answers[:2] + 1) % 10  # two words that the network answers wrong
    monkeypatch.setattr(cola, "trained", lambda seed, scale: (network, words, lengths, answers))
    rows = {arm: cola.run({"arm": arm, "seed": 0}, "quick", cola.effect) for arm in cola.effect.arms}
    for arm, row in rows.items():
        assert row["network"] == pytest.approx(4 / 6)
        assert row["right"] >= row["network"] or arm == "label-free"  # the original path is one of an oracle's
        if arm != "network":
            assert row["paths"] == (7 if arm == "oracle: skip" else 12)  # 2^3 - 1 ways to leave some of three layers
            assert 1 <= row["distinct"] <= 10
    assert rows["network"]["right"] == rows["network"]["network"]
    assert "shorter" not in rows["label-free"]


def test_rule_of_chains_names_the_oracle():
    made = load_experiment("effect.cola")
    rows = []
    for seed in range(3):
        for place, arm in enumerate(made.arms):
            row = {"arm": arm, "seed": seed, "right": 0.7 + place / 100}
            if arm != "network":
                row |= {"repaired": 0.5 + seed / 100, "shorter": 0.6, "over_luck": 0.1}
                row |= {"pareto": [[2, 0.4], [7, 0.9]]} if arm != "label-free" else {}
            rows.append(row)
    conclusion = made.conclude(rows)
    assert conclusion.verdict == "partly"  # no better than random paths
    drawn = pytest.importorskip("matplotlib.figure").Figure()
    made.figure(made.results(rows), drawn, "finding")
    assert [line.get_label() for line in drawn.axes[0].lines][-2:] == ["network (no oracle)", "label-free (no oracle)"]
    assert list(drawn.axes[0].lines[0].get_ydata()) == pytest.approx([0, *[0.4] * 5, *[0.9] * 6])
    assert all(arm.startswith("oracle: ") for arm in made.arms if arm not in ("network", "label-free"))
