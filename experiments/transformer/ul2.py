"""Mixture of denoisers against its parts: filling gaps and going on, by a small decoder with a prefix."""

from collections.abc import Callable
from typing import Any

from graphseq.bench import Above, Effect, Results, Row, Rule, Seeds, all_of, new
from graphseq.bench.records.drawing import Panel, draw_panels

PROTOCOL = """\
Task: windows of 64 characters of Tiny Shakespeare; three blocks of width 96 with a prefix that all steps see. 800 steps
of 16 windows of Adam at 0.002, gradients clipped at 1. Two tests of the same network, both in bits per character of
what is to be written: *gaps*, 15 % of the characters in spans of 3 on average; *continuation*, the end of the window
from a place uniform in its second half. Both count the sentinels.

Arms: what is trained on: *R only*, the spans of the first test; *S only*, the ends of the second, which is a prefix
language model; *UL2*, the seven denoisers of the paper, 40 % R, 20 % S, 40 % X. A specialist sees its test's kind of
window in every step, UL2 in one of five: the claim is that one network comes near both. A third test, *gaps, mode X*,
puts the token of another mode in front of the first: were the tokens not read, it would change nothing.

Seen before this rule was written: the quick scale, 3 steps of each arm from another seed, to try the code and to time
it. A run of 32 windows a step was stopped after one cell, whose time alone was read: 203 seconds.

Conditions, paired by seed: (A) R only less UL2 lies above 0 on continuation; (B) S only less UL2 lies above 0 on gaps;
(C) UL2 less R only lies below 0.3 on gaps; (D) UL2 less S only lies below 0.3 on continuation; (E) UL2 on gaps with
mode X less the same with mode R lies above 0.

Rule: *reproduced* if (A) to (D) hold; *partly* if (A) and (B) do; else *not reproduced*. (E) is reported.
"""


def span(mean_span: float, rate: float, mode: str) -> dict[str, object]:
    """Return a denoiser of spans."""
    return new("graphseq.data.SpanDenoiser", mean_span=mean_span, rate=rate, mode=mode)


GAPS, ENDS = span(3, 0.15, "R"), new("graphseq.data.PrefixDenoiser")
TESTS = {"gaps": GAPS, "continuation": ENDS, "gaps, mode X": span(3, 0.15, "X")}


def bits(test: str) -> Callable[[Row], float]:
    """Return the score of one test."""

    def score(row: Row) -> float:
        return row["test"][test]["bpc"]

    return score


def wrong_mode(row: Row) -> float:
    """Return what the wrong mode costs on the gaps."""
    return row["test"]["gaps, mode X"]["bpc"] - row["test"]["gaps"]["bpc"]


def below(letter: str, difference: str, test: str) -> Above:
    """Return the claim that a difference lies below 0.3 bits."""
    ours, other = difference.split(" - ")
    return Above(letter, f"{other} - {ours}", -0.3, f"{ours} less {other} below 0.3 bits: {test}", bits(test))


def figure(results: Results, drawn: Any, finding: str, reruns: Any) -> None:
    """Draw the bits per character of each seed, a panel for each test."""
    panels = [
        Panel(test, {arm: list(results.values(arm, bits(test)).values()) for arm in effect.arms}, scale=test)
        for test in ("gaps", "continuation")
    ]
    draw_panels(drawn, panels, finding=finding, label="bits per character", better="lower", ours=["UL2"])


effect = Effect(
    name="effect.ul2",
    source="arXiv 2205.05131",
    protocol=PROTOCOL,
    config="configs/language/ul2_prefix_chars.yaml",
    base={
        "trainer.max_epochs": 2,
        "trainer.limit_train_batches": 400,
        "model.optimizer.lr": 0.002,
        "data.batch_size": 16,
        "data.eval_batch_size": 128,
    },
    arms={
        "R only": {"data.denoisers": [GAPS]},
        "S only": {"data.denoisers": [ENDS]},
        "UL2": {},
    },
    scales={
        "quick": {
            "trainer.limit_train_batches": 3,
            "trainer.limit_val_batches": 2,
            "trainer.limit_test_batches": 2,
            "trainer.max_epochs": 1,
        },
        "full": {"trainer.max_epochs": 20},
    },
    seeds=Seeds(first=1620, default=5, into=("data.seed",)),
    score=bits("gaps"),
    better="lower",
    choose="val/loss",
    mode="min",
    tests={name: {"data.eval_denoisers": [denoiser]} for name, denoiser in TESTS.items()},
    columns={"gaps": bits("gaps"), "continuation": bits("continuation"), "wrong mode costs": wrong_mode},
    claims=[
        Above("A", "R only - UL2", text="R only less UL2: continuation", score=bits("continuation")),
        Above("B", "S only - UL2", text="S only less UL2: gaps", score=bits("gaps")),
        below("C", "UL2 - R only", "gaps"),
        below("D", "UL2 - S only", "continuation"),
        Above("E", "UL2", text="what the wrong mode costs UL2 on gaps", score=wrong_mode),
    ],
    verdict=Rule(reproduced=all_of("ABCD"), partly=all_of("AB")),
    unit="bits per character",
    figure=figure,
)
