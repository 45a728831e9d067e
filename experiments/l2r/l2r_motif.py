"""Learned weights on motif graphs whose training set is biased."""

from typing import TYPE_CHECKING

from experiments.l2r.rule import conclude_shifts, draw_shifts
from experiments.l2r.training import ARMS, BALANCED, Recipe, ShiftedGraphs, train_arm
from graphseq.bench.experiment import Conclusion, Experiment, Row, Scale
from graphseq.data import MotifDataModule

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["L2ROnMotifs"]

_BIASES = (0.6, 0.7, 0.8, 0.9, 0.97)
_NETWORK = {"hidden_channels": 32, "num_layers": 3, "conv": "gin", "norm": "none", "head_layers": 1}
_RECIPES = {
    "quick": Recipe(epochs=2, start_epoch=0, network=_NETWORK),
    "default": Recipe(epochs=12, strengths=3, network=_NETWORK),
    "full": Recipe(epochs=100, start_epoch=3, strengths=3, network=_NETWORK),
}
_SIZES = {"quick": (40, 20, 20), "default": (250, 100, 400), "full": (500, 100, 400)}  # train, val, each test
_SEEDS = {"quick": 1, "default": 8, "full": 10}  # at least
_FIRST_SEED, _OTHER_TEST = 100, 50_000


class L2ROnMotifs(Experiment):
    """L2R-GNN against pooled training and invariance baselines on graphs with a spurious motif, at five biases.

    Source: arXiv 2312.12475, whose synthetic graphs have biases of 0.6 to 0.9; its motifs, base graphs and sizes are
    not printed, so motifs are ours (``MotifDataModule``) and its accuracies (GIN 72.4 to 65.7 percent over the biases,
    L2R 73.1 to 70.4, read off a figure) are not of the same data. A fifth bias, 0.97, is added because plain training
    finds the cause by itself below.

    Data: 250 training graphs whose spurious motif goes along with the class with probability mu, in two environments
    of mu - (1 - mu) / 2 and mu + (1 - mu) / 2, 100 validation graphs without bias, and two tests of 400: *unbiased*
    (0.5, as in the paper) and *reversed* (0.1).

    Arms: *ERM*; *ERM, train + validation*, the control: whoever has unbiased graphs can train on them; *IRM*, *V-REx*,
    *GroupDRO*, *CORAL* over the two environments; *all pairs*, weights that decorrelate all pairs of features (the
    objective of OOD-GNN and StableNet); *L2R, first order*, weights that decorrelate clusters of features, learned on
    held-out graphs; *L2R, unrolled*, weights that lower the validation loss after virtual steps of the head. Classes
    are balanced, so there is no class-balanced arm.

    Protocol: GIN of 3 layers, width 32, mean pooling, linear head, no batch norm, Adam at 0.003, batches of 64; 12
    epochs, of which the first 2 are plain in every arm (an eighth of the 100 that the paper's loss curves run over;
    ``full`` is 100 epochs on 500 graphs). Each method is run with three strengths (penalty 1, 10, 100; step of
    GroupDRO 0.01, 0.1, 1; rate of the weights 0.02, 0.05, 0.2, in 4 steps a batch); strength and epoch are chosen by
    the accuracy on the validation graphs. Pooled training has none left and takes the epoch with the least loss on
    what it is trained on. No arm sees a test. At least 8 seeds (``full`` 10), from 100 on, each with data of its own;
    arms are paired by seed, intervals are 95 %. ESS is the effective sample size of the weights of the training
    graphs; *weight ratio*, the mean weight of graphs whose spurious motif is not that of their class over the others.

    Seen before this rule was written: plain and pooled training for up to 24 epochs on 250 and 500 graphs, biases 0.7
    to 0.97, seeds 1000 and 1001, for the number of graphs and epochs: ERM is to lose from unbiased to reversed graphs;
    pooled training was better than ERM throughout.

    Rule: L2R is the form with the higher mean validation accuracy, the best other baseline is the one of the other
    arms, pooled training left out. In a setting (bias and test) the claim holds if the intervals of L2R less pooled
    training and of L2R less the best other baseline both lie above 0. *Reproduced* if it holds in all ten settings,
    *partly* if in one, else *not reproduced*.

    Example:
        >>> L2ROnMotifs().cells("quick", 1)[0]
        {'data': 'bias 0.97', 'arm': 'ERM', 'seed': 100}
    """

    name, kind = "effect.l2r_motif", "effect"

    def cells(self, scale: Scale, seeds: int) -> list[Row]:
        """Return one cell for each bias, seed and arm.

        Args:
            scale: how much.
            seeds: of each arm, at least 8 at scale ``default``.
        """
        return [
            {"data": f"bias {bias:g}", "arm": arm, "seed": _FIRST_SEED + seed}
            for bias in (_BIASES[-1:] if scale == "quick" else _BIASES)
            for seed in range(max(seeds, _SEEDS[scale]) if scale != "quick" else seeds)
            for arm in ARMS
            if arm != BALANCED
        ]

    def run(self, cell: Row, scale: Scale) -> Row:
        """Train one arm with all its strengths.

        Args:
            cell: one of :meth:`cells`.
            scale: how long.
        """
        data = _motifs(float(cell["data"].removeprefix("bias ")), cell["seed"], *_SIZES[scale])
        return train_arm(cell["arm"], data, _RECIPES[scale], cell["seed"])

    def conclude(self, rows: list[Row]) -> Conclusion:
        """Compare arms by seed and apply the rule.

        Args:
            rows: the cells that ran.
        """
        return Conclusion(*conclude_shifts(rows))

    def draw(self, record: Row, axes: "Axes") -> None:
        """Draw differences to pooled training in each setting.

        Args:
            record: the record.
            axes: empty Axes.
        """
        draw_shifts(record, axes)


def _motifs(bias: float, seed: int, train: int, val: int, test: int) -> ShiftedGraphs:
    half = (1 - bias) / 2
    biased = MotifDataModule(
        num_train=train, num_val=val, num_test=test, train_bias=[bias - half, bias + half], test_bias=0.1, seed=seed
    )
    even = MotifDataModule(num_train=2, num_val=0, num_test=test, test_bias=0.5, seed=seed + _OTHER_TEST)
    return ShiftedGraphs(
        biased.graphs,
        biased.splits,
        {"unbiased": even.splits["test"], "reversed": biased.splits["test"]},
        elsewhere={"unbiased": even.graphs},
    )


effect = L2ROnMotifs()
