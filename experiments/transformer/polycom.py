"""Polynomial activations in a language model of four blocks: PolyNorm and PolyReLU against GELU, ReLU² and SwiGLU."""

from experiments.transformer.feed_forward import BASE, SCALES, activated, gated
from graphseq.bench import Above, Effect, Rule, Seeds, all_of, any_of

PROTOCOL = """\
Task: the next character of Tiny Shakespeare, windows of 64 characters; four blocks of width 64 with 4 heads, RMSNorm
before each part, rotary positions. 400 steps of 16 windows of Adam, gradients clipped at 1. Each arm is trained with
the learning rates 0.001 and 0.003 from each seed, and the one with the lower validation loss counts, for all arms
alike. The loss of the test split, in bits per character, is that after training.

Arms: the activation of the feed-forward parts: *GELU*, *ReLU*, *ReLU²* (a single power: the control that tells a
polynomial from a square), *PolyReLU* and *PolyNorm* of order 3, all in two layers of width 4 D, and *SwiGLU* in three
layers of width 8/3 D, rounded up to a multiple of 8: 0.3 % more weights. Polynomials have 16 coefficients more.

Seen before this rule was written: the quick scale, 3 steps of each arm from another seed, to try the code and to time
it.

Conditions, paired by seed: (A) GELU less PolyNorm lies above 0; (B) SwiGLU less PolyNorm lies above 0; (C) ReLU² less
PolyNorm lies above 0; (D) GELU less PolyReLU lies above 0; (E) ReLU² less PolyReLU lies above 0.

Rule: *reproduced* if (A), (B) and (C) hold; *partly* if (A) or (D) does; else *not reproduced*. (E) is reported. The
paper reports 0.02 nats, or 0.03 bits, at many times this size.
"""

effect = Effect(
    name="effect.polycom",
    source="arXiv 2411.03884",
    protocol=PROTOCOL,
    config="configs/language/polynorm_chars.yaml",
    base=BASE,
    arms={
        "GELU": activated("torch.nn.GELU"),
        "ReLU": activated("torch.nn.ReLU"),
        "ReLU²": activated("graphseq.nn.SquaredReLU"),
        "SwiGLU": gated("torch.nn.SiLU"),
        "PolyReLU": activated("graphseq.nn.PolyReLU"),
        "PolyNorm": activated("graphseq.nn.PolyNorm"),
    },
    scales=SCALES,
    seeds=Seeds(first=1420, default=5, into=("data.seed",)),
    score="test/bpc",
    choose="val/loss",
    mode="min",
    claims=[
        Above("A", "GELU - PolyNorm"),
        Above("B", "SwiGLU - PolyNorm"),
        Above("C", "ReLU² - PolyNorm"),
        Above("D", "GELU - PolyReLU"),
        Above("E", "ReLU² - PolyReLU"),
    ],
    verdict=Rule(reproduced=all_of("ABC"), partly=any_of("AD")),
    unit="bits per character",
)
