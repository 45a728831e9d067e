"""Temporal convolutions in three places against networks on frames, where one frame tells nothing."""

from graphseq.bench import Above, Effect, MeanAbove, Row, Rule, Seeds, Within, all_of, any_of

PROTOCOL = """\
Data: digits of scikit-learn, enlarged to 16 x 16, that move by 2 pixels a frame in one of eight directions over a
canvas of 32 x 32 whose opposite sides meet; 8 frames, 2,000 training videos, the start uniform. A single frame has the
same distribution in all eight classes, so that the best classifier of single frames says 1/8 for each, and so does the
mean of its scores over a video: 12.5 points. The frames of a video without their order have the same distribution for
opposite directions, so that no network that is symmetric in time reaches more than 50 points.

Arms, each a bottleneck network of width 8 with (2, 2, 2, 1) blocks: *per frame*, blocks without temporal convolution,
trained on single frames, scores averaged over the 8 frames of a video; the control *unordered*, the same network on
whole videos, features averaged over frames; *A* (temporal after spatial), *B* (side by side), *C* (after, with a
connection past it), and *mixed*, A, B and C in turn. Time is halved by maxima after the first and the second stage in
A, B, C and mixed, never in the two on frames. Temporal convolutions add a twentieth to the weights.

Protocol: Adam at 0.003, batches of 64 videos, 6 epochs (192 steps); the epoch of the best validation accuracy (500
videos) is tested once on 1,000 videos. No digit is in two splits. The arms of a seed share videos and order of
batches. Five seeds from 1200 on, which nothing was run with; the quick scale tried the code with seed 1100. Intervals
are 95 %, paired by seed, in points of accuracy.

Seen before this rule was written: the specification, which expects more than 85 points; seed 0 of *mixed* for 4 epochs,
92 points, and seed 50 as above, 93; seed 50 of *per frame* as above, 13.4 points, and of *unordered* for 4 epochs, 15
points. A, B and C had not been trained.

Conditions: (A) A, (B) B, (C) C, (D) mixed, each less unordered, lies above 50; (E) per frame less 12.5 lies within 5 of
0, and not at it, since a network that remembers where training videos went by has some of the axis; (F) mixed is at
least 85 in the mean; (G) mixed less A, (H) mixed less C, (I) mixed less B lies above 0: the paper reports 0.5, 1.2 and
1.4 points on UCF101.

Rule: *reproduced* if (A) to (F) hold; *partly* if one of (A) to (D) does; else *not reproduced*. (G) to (I) are
reported: videos as simple as these do not tell the kinds apart.
"""

_FRAMES = {"model.model.order": ["2d"], "model.model.temporal_pool": [False, False, False, False]}


def score(row: Row) -> float:
    """Return the accuracy in points."""
    return 100 * row["test"][""]["acc"]


effect = Effect(
    name="effect.p3d",
    source="arXiv 1711.10305",
    protocol=PROTOCOL,
    config="configs/vision/p3d_motion.yaml",
    base={"trainer.max_epochs": 6, "data.eval_batch_size": 250},
    arms={
        "per frame": {**_FRAMES, "data.num_clips": 8},
        "unordered": _FRAMES,
        **{kind: {"model.model.order": [kind]} for kind in "ABC"},
        "mixed": {},
    },
    scales={
        "quick": {"trainer.max_epochs": 1, "trainer.limit_train_batches": 3, "data.num_train": 192, "data.num_val": 64,
                  "data.num_test": 64}
    },
    seeds=Seeds(first=1200, default=5, into=("data.seed",)),
    score=score,
    choose="val/acc",
    claims=[
        *(Above(letter, f"{arm} - unordered", 50) for letter, arm in zip("ABCD", [*"ABC", "mixed"], strict=True)),
        Within("E", "per frame", 5, text="per frame less 12.5", score=lambda row: score(row) - 12.5),
        MeanAbove("F", "mixed", 85),
        *(Above(letter, f"mixed - {arm}") for letter, arm in zip("GHI", "ACB", strict=True)),
    ],
    verdict=Rule(reproduced=all_of("ABCDEF"), partly=any_of("ABCD")),
    unit="points of accuracy",
)  # fmt: skip
