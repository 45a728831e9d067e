"""Relevance patching as an experiment: the measure of a cell, and what the rule concludes from it."""

from experiments.analysis import relp
from graphseq.data import IndirectObjectDataModule
from graphseq.models import SequenceTagger
from graphseq.nn import BlockStack, CausalAttention, SequenceBlock
from graphseq.tasks import SequenceTagging


def test_rule_of_relevance_patching():
    def rows(residual=0.98, mlp=0.99, attention=0.98, accuracy=1.0):
        for arm in relp.effect.arms:
            for seed in range(2):
                found = {name: {"residual": 0.3, "mlp": 0.99, "attention": 0.99} for name in relp.ESTIMATES}
                found["RelP"] = {"residual": residual - seed / 100, "mlp": mlp, "attention": attention}
                yield {"arm": arm, "seed": seed, "pearson": found, "pearson_late": found,
                       "test": {"": {"acc": accuracy}}}  # fmt: skip

    def verdict(**given):
        return relp.effect.conclude(list(rows(**given))).verdict

    assert verdict() == "reproduced"
    assert verdict(residual=0.955) == "partly"  # in the second seed it is below 0.95
    assert verdict(mlp=0.98) == "partly"
    assert verdict(residual=0.5) == "not reproduced"
    assert verdict(accuracy=0.9) == "not reproduced"
    table = relp.effect.conclude(list(rows())).table
    assert len(table) == 3 * len(relp.ESTIMATES)
    assert table[1]["residual"] == 0.975


def test_measure_has_each_estimate_at_each_site():
    data = IndirectObjectDataModule(50, seed=2)
    layers = BlockStack([SequenceBlock(CausalAttention(8, 2))], repeats=2)
    network = SequenceTagger(data.num_outputs, vocab_size=data.vocab_size, hidden_channels=8, recurrent=layers)
    row = relp.measure(SequenceTagging(network, data.num_outputs), data)
    assert set(row["pearson"]) == set(relp.ESTIMATES) == set(row["pearson_late"]) == set(row["overlap"])
    assert all(set(found) == set(relp.SITES) for found in row["pearson"].values())
    assert row["pearson"]["RelP"] != row["pearson"]["RelP, ln + identity"]  # this network has gates
