"""Experiments on the parts of transformers: scores, verdicts, and collators that agree."""

import pytest

from experiments.transformer import crrelu, mixln, ul2, ul2_collate
from graphseq.bench.speeds.speed import OutputsDiffer, Setting


def test_scores():
    row = {"test": {"gaps": {"bpc": 2.0}, "gaps, mode X": {"bpc": 2.5}, "continuation": {"bpc": 3.0}}}
    assert ul2.wrong_mode(row) == 0.5
    assert ul2.bits("continuation")(row) == 3.0
    assert crrelu.score({"test": {"": {"acc": 0.9}}}) == 90
    assert crrelu.score({"test": {"": {"bpc": 2.5}}}) == -150


def rows(**bits):
    """Losses of two tests by arm, for five seeds."""
    for seed in range(5):
        for arm, (gaps, ends) in bits.items():
            test = {"gaps": gaps, "continuation": ends, "gaps, mode X": gaps + 0.1}
            noise = 0.01 * seed
            yield {"arm": arm, "seed": seed, "test": {name: {"bpc": value + noise} for name, value in test.items()}}


@pytest.mark.parametrize(
    ("mixture", "verdict"),
    [((2.1, 2.1), "reproduced"), ((2.5, 2.1), "partly"), ((2.1, 3.5), "not reproduced")],
)
def test_verdict_of_the_mixture(mixture, verdict):
    found = ul2.effect.conclude(list(rows(**{"R only": (2.0, 3.0), "S only": (3.0, 2.0), "UL2": mixture})))
    assert found.verdict == verdict


def test_a_quarter_on_top_is_the_last_quarter():
    (first, _) = mixln.on_top()
    blocks = first["model.model.layers"]["init_args"]["blocks"]
    assert ["residual" in block["init_args"] for block in blocks] == [False] * 9 + [True] * 3


def test_collators_agree():
    subject = ul2_collate.prepare({"steps": 40}, Setting("quick"))
    calls = {"batch": ul2_collate.whole(subject), "per example": ul2_collate.one_by_one(subject)}
    assert ul2_collate.equal(subject, calls) == {"compared": 2}
    with pytest.raises(OutputsDiffer):
        ul2_collate.equal(subject, {**calls, "other": lambda: [part + 1 for part in calls["batch"]()]})
