import pytest
import torch

from graphseq.core.batches import IGNORED
from graphseq.data import AssociativeRecallDataModule, associative_recall
from graphseq.models import SequenceTagger
from graphseq.nn import BlockStack, GatedLinearAttention, SequenceBlock
from graphseq.tasks import SequenceTagging


def solved(row):
    """Labels of one sequence by a dictionary that a new value overwrites; None where a token is no query."""
    bound, labels, t = {}, [None] * len(row), 0
    while t < len(row):
        if row[t] and row[t] in range(1, 8) and t + 1 < len(row) and row[t + 1] >= 8:
            bound[row[t]] = row[t + 1]
            t += 1
        elif row[t] in bound:
            labels[t] = bound[row[t]]
        t += 1
    return labels


@pytest.mark.parametrize("segments", [1, 3])
def test_labels_are_the_latest_values(segments):
    x, y = associative_recall(50, num_tokens=16, length=24, num_pairs=3, num_segments=segments)
    width = 24 if segments == 1 else 26
    assert x.shape == y.shape == (50, width * segments)
    for row, labels in zip(x.tolist(), y.tolist(), strict=True):
        expected = [IGNORED if label is None else label for label in solved([0 if t == 16 else t for t in row])]
        assert labels == expected
        assert sum(label != IGNORED for label in labels) == 3 * segments
    if segments > 1:
        assert (x[:, ::width] == 16).all()
        values = [y[:, n * width : (n + 1) * width] for n in range(segments)]
        asked = [part[part != IGNORED].view(50, 3).sort(1).values for part in values]
        assert not torch.equal(asked[0], asked[1]), "each segment draws values anew"


def test_places_of_the_queries():
    """Even steps after the pairs, two different ones, with a chance that falls as a power of the distance."""
    early, even = (
        (associative_recall(2000, num_tokens=16, length=40, num_pairs=2, concentration=a)[1] != IGNORED)
        for a in (0.01, 1.0)
    )
    for asked in (early, even):
        assert not asked[:, :4].any()
        assert not asked[:, 1::2].any()
    for asked, a in ((early, 0.01), (even, 1.0)):
        p = (torch.arange(18) + 1.0) ** (a - 1)
        p = p / p.sum()
        both = p + torch.stack([(p[n] * p / (1 - p))[torch.arange(18) != n].sum() for n in range(18)])
        assert torch.allclose(asked[:, 4:].float().mean(0)[::2], both, atol=0.04)


def test_fillers():
    x, y = associative_recall(200, num_tokens=16, length=24, num_pairs=3, random_fillers=True)
    rest = x[:, 6:][y[:, 6:] == IGNORED]
    assert set(rest.tolist()) == set(range(16))


def test_module_trains_the_public_task():
    data = AssociativeRecallDataModule(40, 16, 12, 2, num_segments=2, batch_size=4, seed=3)
    assert (data.vocab_size, data.num_outputs) == (17, 16)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 32, "val": 4, "test": 4}
    again = AssociativeRecallDataModule(40, 16, 12, 2, num_segments=2, batch_size=4, seed=3)
    assert torch.equal(data.store.x, again.store.x)
    assert not torch.equal(data.store.x, AssociativeRecallDataModule(40, 16, 12, 2, 2, seed=4).store.x)
    network = SequenceTagger(
        16, vocab_size=17, hidden_channels=8, recurrent=BlockStack([SequenceBlock(GatedLinearAttention(8, 2))])
    )
    step = SequenceTagging(network, 16).step(next(data.batches()))
    assert int(step.size) == 4 * 2 * 2
    step.loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_sequences": 9}, "num_sequences is 9"),
        ({"num_pairs": 0}, "num_pairs is 0"),
        ({"length": 15}, "length is 15; it must be at least 16"),
        ({"length": 17}, "length is 17; it must be even"),
        ({"num_tokens": 9}, "num_tokens is 9; 4 pairs need at least 10"),
        ({"num_segments": 0}, "num_segments is 0"),
        ({"concentration": 0.0}, "concentration is 0"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AssociativeRecallDataModule(**options)
