"""Pooling by the 16 orders of four points against maximum, average, sum and mixed pooling, without a ReLU before it."""

from graphseq.bench import Above, Effect, Row, Rule, Seeds, Within, all_of, any_of, new

PROTOCOL = """\
Network: three blocks of convolution 3 x 3, batch norm, pooling 2 x 2, ReLU, with 8, 16 and 32 channels; mean over
positions; linear head. Batch norm gives values of both signs, without which all orders are the same layer. Arms:
*max*, *average*; *sum*, four times the average, the control for the scale of poset pooling; *mixed*, maximum and
average in a share that is learned for each block; *order 0* to *order 15*, poset pooling by the 16 orders of four
points with the labels and numbers of the published table: 1 is the antichain, 12 is N, 13 the chain, 14 the diamond.

Control of the argument: *sum after ReLU*, *chain after ReLU* and *N after ReLU* have a ReLU before the pooling as well,
as the authors advise. There all orders are the sum. Chain and sum add up in the same order, so that these two networks
must be equal to the last bit; N adds up in another one and may drift off by rounding.

Protocol: USPS, 16 x 16, normalised by the training split, a tenth of which validates; Adam at 0.003, batches of 100, 8
epochs (528 steps); the epoch of the best validation accuracy is tested once. The arms of a seed share split and order
of batches. Five seeds from 2100 on, which nothing was run with; the quick scale tried the code with seed 2000.
Intervals are 95 %, paired by seed, in points of accuracy.

Seen before this rule was written: the published table, quaternion networks on CIFAR-10, in which all orders lie between
78.7 and 79.1 with deviations of 0.4 to 0.7, and which has no other pooling beside them; with seed 50 one run of order
12 on this data, 94.6, and of max, 95.0; and with seed 50 four of other sizes on Fashion-MNIST, 6,000 images, 4 epochs:
order 12 with 8 channels 66.3, with 16 68.1, max 71.7, average 67.0. No other arm was run.

Conditions: order 12 (N, the authors' example) less (A) max, (B) average, (C) mixed, (D) sum lies above 0; order 7, the
best one of the published table, less (E) max, (F) average, (G) mixed, (H) sum lies above 0; (I) every order less order
12 lies within 1 of 0, as in the published table; (J) chain after ReLU less sum after ReLU lies within 0 of 0, and (K) N
after ReLU less sum after ReLU within 1.

Rule: *reproduced* if (A) to (D) hold: better than each of the others, and not by its scale; *partly* if one of (A) to
(C) does; else *not reproduced*. (E) to (K) are reported.
"""

ORDERS = {f"order {number}": number for number in range(16)}
RIVALS = ("max", "average", "mixed", "sum")
MAX = new("torch.nn.MaxPool2d", kernel_size=2)
AVERAGE = new("torch.nn.AvgPool2d", kernel_size=2)
SUM = new("torch.nn.AvgPool2d", kernel_size=2, divisor_override=1)
MIXED = new("graphseq.nn.MixedPool2d")
RELU = new("torch.nn.ReLU")


def pooled(*modules: object) -> dict[str, object]:
    """Return the overrides of a network with some modules between batch norm and ReLU."""
    return {"model.model.pooling": list(modules)}


def order(poset: str | int) -> dict[str, object]:
    """Return pooling by an order."""
    return new("graphseq.nn.PosetPool2d", poset=poset)


def score(row: Row) -> float:
    """Return the accuracy in points."""
    return 100 * row["test"][""]["acc"]


AFTER = {"sum": SUM, "chain": order("chain"), "N": order("N")}

effect = Effect(
    name="effect.poset",
    source="arXiv 2412.06097",
    protocol=PROTOCOL,
    config="configs/vision/poset_digits.yaml",
    base={
        "trainer.max_epochs": 8,
        "model.model.hidden_channels": 8,
        "model.model.num_layers": 3,
        "data.name": "USPS",
        "data.augmentation": "none",
        "data.batch_size": 100,
        "data.eval_batch_size": 1000,
    },
    arms={
        "max": pooled(MAX),
        "average": pooled(AVERAGE),
        "sum": pooled(SUM),
        "mixed": pooled(MIXED),
        **{arm: pooled(order(number)) for arm, number in ORDERS.items()},
        **{f"{name} after ReLU": pooled(RELU, module) for name, module in AFTER.items()},
    },
    scales={"quick": {"trainer.max_epochs": 1, "trainer.limit_train_batches": 3}},
    seeds=Seeds(first=2100, default=5, into=("data.seed",)),
    where=lambda cell, scale: scale != "quick" or cell["arm"] in ("mixed", "order 12") or cell["arm"].endswith("ReLU"),
    score=score,
    choose="val/acc",
    claims=[
        *(Above(letter, f"order 12 - {rival}") for letter, rival in zip("ABCD", RIVALS, strict=True)),
        *(Above(letter, f"order 7 - {rival}") for letter, rival in zip("EFGH", RIVALS, strict=True)),
        *(Within("I", f"{arm} - order 12", 1) for arm, number in ORDERS.items() if number != 12),
        Within("J", "chain after ReLU - sum after ReLU", 0),
        Within("K", "N after ReLU - sum after ReLU", 1),
    ],
    verdict=Rule(reproduced=all_of("ABCD"), partly=any_of("ABC")),
    unit="points of accuracy",
)
