"""L2R-GNN against pooled training and invariance baselines on graphs with a spurious motif, at five biases."""

from experiments.l2r.shifts import arms, shift_effect

PROTOCOL = """\
The paper's synthetic graphs have biases of 0.6 to 0.9; motifs, base graphs and sizes are not printed, so motifs are
ours (``MotifDataModule``) and its accuracies (GIN 72.4 to 65.7 percent over the biases, L2R 73.1 to 70.4, read off a
figure) are not of the same data. A fifth bias, 0.97, is added because plain training finds the cause by itself below.

Data: 250 training graphs whose spurious motif goes along with the class with probability mu, in two environments of mu
- (1 - mu) / 2 and mu + (1 - mu) / 2, 100 validation graphs without bias, and two tests of 400: *unbiased* (0.5, as in
the paper) and *reversed* (0.1). Each seed has data of its own. Classes are balanced.

Training: GIN of 3 layers, width 32, mean pooling, linear head, no batch norm, Adam at 0.003, batches of 64; 12 epochs,
of which the first 2 are plain in every arm (an eighth of the 100 that the paper's loss curves run over; ``full`` is 100
epochs on 500 graphs). Three strengths of each method.

Seen before this rule was written: plain and pooled training for up to 24 epochs on 250 and 500 graphs, biases 0.7 to
0.97, seeds 1000 and 1001, for the number of graphs and epochs: ERM is to lose from unbiased to reversed graphs; pooled
training was better than ERM throughout.
"""

BIASES = {f"bias {bias:g}": [bias - (1 - bias) / 2, bias + (1 - bias) / 2] for bias in (0.6, 0.7, 0.8, 0.9, 0.97)}


def even(cell: dict) -> dict:
    """Return what another test set of the cell's seed changes: graphs without bias."""
    few = {"num_train": 2, "num_val": 0, "train_bias": 0.9, "test_bias": 0.5, "pool": None}
    return {f"data.{name}": value for name, value in few.items()} | {"data.seed": 50_000 + cell["seed"]}


effect = shift_effect(
    name="effect.l2r_motif",
    source="arXiv 2312.12475",
    protocol=PROTOCOL,
    config="configs/graph/erm_motif.yaml",
    base={
        "data": {"class_path": "experiments.l2r.shifts.MotifShift", "init_args": {"test_bias": 0.1, "batch_size": 64}},
        "data.num_train": 250,
    },
    arms=arms(2, 2, strengths=3, balanced=False),
    grid={"data": {name: {"data.train_bias": environments} for name, environments in BIASES.items()}},
    where=lambda cell, scale: scale != "quick" or cell["data"] == "bias 0.97",
    tests={"reversed": {}, "unbiased": even},
    scales={
        "quick": {"trainer.max_epochs": 1, "data.num_train": 40, "data.num_val": 20, "data.num_test": 20},
        "full": {"trainer.max_epochs": 100, "data.num_train": 500},
    },
    seeds=8,
    unit="percentage points",
    choose="val/acc",
)
