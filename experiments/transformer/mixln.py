"""Placement of norms in a language model of 12 blocks: Pre-LN, Post-LN, Mix-LN, and a quarter of Post-LN at the top."""

from typing import Any

import torch

from graphseq.bench import Above, Effect, Rule, Seeds, all_of, any_of, new, over

PROTOCOL = """\
Task: the next character of Tiny Shakespeare, windows of 64 characters; 12 blocks of width 48 with 4 heads, RMSNorm,
rotary positions, SwiGLU. 400 steps of 16 windows of Adam, gradients clipped at 1 in all arms alike (the authors'
scripts clip those of Pre-LN alone). Each arm is trained with the learning rates 0.001 and 0.003 from each seed, and the
one with the lower validation loss counts, for all placements alike. The loss of the test split, in bits per character,
is that after training.

Arms: *Pre-LN*; *Post-LN*, with a norm at the end, too, as in the authors' code; *Mix-LN*, the first quarter of the
blocks Post-LN; the control *quarter on top*, the last quarter Post-LN: were any quarter as good, the order that the
paper argues for would not be what counts. All have as many weights.

Printed beside it: the coefficient of variation of the gradient norm over the 12 blocks, on the first 64 windows of the
validation split, after training.

Seen before this rule was written: the quick scale, 3 steps of each arm from another seed, to try the code and to time
it.

Conditions, paired by seed: (A) Pre-LN less Mix-LN lies above 0; (B) Post-LN less Mix-LN lies above 0; (C) quarter on
top less Mix-LN lies above 0; (D) the coefficient of variation of Pre-LN less that of Mix-LN lies above 0.

Rule: *reproduced* if (A), (B) and (C) hold; *partly* if (A) or (B) does; else *not reproduced*. (D) is reported. The
paper's gain is 0.03 to 0.07 bits of a token, at many times this size.
"""

LAYERS = "model.model.layers"
BLOCK = {"mixer": new("graphseq.nn.CausalAttention", dim=48, num_heads=4)}


def share(value: float) -> list[dict[str, object]]:
    """Return the overrides of a share of Post-LN blocks at the bottom, for both learning rates."""
    return over({f"{LAYERS}.post_share": value}, "model.optimizer.lr", [0.001, 0.003])


def on_top() -> list[dict[str, object]]:
    """Return the overrides of a stack whose last three blocks are Post-LN, for both learning rates."""
    pre = new("graphseq.nn.SequenceBlock", **BLOCK)
    post = new("graphseq.nn.SequenceBlock", **BLOCK, residual=new("graphseq.nn.PostNorm", dim=48))
    stack = new("graphseq.nn.BlockStack", blocks=[pre] * 9 + [post] * 3)
    return over({LAYERS: stack}, "model.optimizer.lr", [0.001, 0.003])


def variation(task: Any, data: Any) -> dict[str, float]:
    """Return the coefficient of variation of the gradient norm over the blocks."""
    data.load()
    batch = data.store.take(data.splits["val"][:64])
    task.zero_grad()
    with torch.enable_grad():
        task.step(batch, "val").loss.backward()
    norms = torch.stack(
        [
            torch.stack([weight.grad.norm() for weight in block.parameters() if weight.grad is not None]).norm()
            for block in task.model.layers.blocks
        ]
    )
    task.zero_grad()
    return {"variation": float(norms.std() / norms.mean())}


effect = Effect(
    name="effect.mixln",
    source="arXiv 2412.13795",
    protocol=PROTOCOL,
    config="configs/language/mixln_chars.yaml",
    base={
        "trainer.max_epochs": 1,
        "trainer.limit_train_batches": 400,
        "trainer.callbacks": None,
        f"{LAYERS}.mixer": BLOCK["mixer"],
        f"{LAYERS}.num_layers": 12,
        "data.length": 64,
        "data.batch_size": 16,
    },
    arms={"Pre-LN": share(0.0), "Post-LN": share(1.0), "Mix-LN": share(0.25), "quarter on top": on_top()},
    scales={
        "quick": {"trainer.limit_train_batches": 3, "trainer.limit_val_batches": 2, "trainer.limit_test_batches": 2},
        "full": {"trainer.limit_train_batches": 1500, f"{LAYERS}.num_layers": 12, "data.length": 128},
    },
    seeds=Seeds(first=1320, default=5, into=("data.seed",)),
    score="test/bpc",
    choose="val/loss",
    mode="min",
    measure=variation,
    columns={"variation of gradient norms": "variation"},
    claims=[
        Above("A", "Pre-LN - Mix-LN"),
        Above("B", "Post-LN - Mix-LN"),
        Above("C", "quarter on top - Mix-LN"),
        Above("D", "Pre-LN - Mix-LN", score="variation"),
    ],
    verdict=Rule(reproduced=all_of("ABC"), partly=any_of("AB")),
    unit="bits per character",
)
