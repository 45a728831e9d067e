"""Pruning by score against a loop over sorted weights, and what removing negative weights does to ReLU units."""

import pytest
import torch
from torch import nn

from graphseq.sparsity import distance_score, prune_lowest, trace_relus


def drawn(seed, shapes=((4, 5), (3, 2, 2, 2), (6, 3))):
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.rand(shape, generator=generator) for shape in shapes]
    masks = [torch.rand(shape, generator=generator) < 0.7 for shape in shapes]
    eligible = [torch.rand(shape, generator=generator) < 0.6 for shape in shapes]
    eligible[0][1] = True  # a unit of which all weights may go
    return scores, masks, eligible


def one_by_one(scores, masks, count, eligible, keep_inputs):
    """Take the weights in order of their scores, and prune each that may go."""
    masks = [mask.clone() for mask in masks]
    order = sorted(
        (float(score), layer, place)
        for layer, all_scores in enumerate(scores)
        for place, score in enumerate(all_scores.flatten())
    )
    gone = 0
    for _, layer, place in order:
        flat, may = masks[layer].view(-1), eligible[layer].flatten()
        unit = masks[layer].flatten(1)[place // masks[layer][0].numel()]
        if gone < count and flat[place] and may[place] and not (keep_inputs and unit.sum() == 1):
            flat[place] = False
            gone += 1
    return masks


@pytest.mark.parametrize("keep_inputs", [False, True])
@pytest.mark.parametrize("count", [0, 7, 20, 40])
def test_equals_one_weight_after_the_other(count, keep_inputs):
    for seed in range(5):
        scores, masks, eligible = drawn(seed)
        count = min(count, sum(int(mask.sum()) for mask in masks))
        everything = [torch.ones_like(mask) for mask in masks]
        for may in (eligible, everything):
            expected = one_by_one(scores, masks, count, may, keep_inputs)
            found = prune_lowest(scores, masks, count, eligible=may, keep_inputs=keep_inputs)
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    if keep_inputs:
        before, after = masks[0].any(1), found[0].any(1)
        assert torch.equal(before, after)


def test_a_layer_loses_its_share_and_all_together_the_whole_count():
    scores, masks, _ = drawn(3)
    alive = [int(mask.sum()) for mask in masks]
    for count in range(sum(alive) + 1):
        found = prune_lowest(scores, masks, count, scope="layer")
        lost = [before - int(mask.sum()) for before, mask in zip(alive, found, strict=True)]
        assert sum(lost) == count
        assert all(abs(one - count * before / sum(alive)) < 1 for one, before in zip(lost, alive, strict=True))
        for score, before, after in zip(scores, masks, found, strict=True):
            assert not after.any() or not (before & ~after).any() or score[before & ~after].max() < score[after].min()


def test_of_equal_scores_the_first_go_and_the_last_stays():
    ones, full = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)
    assert prune_lowest([ones], [full], 4)[0].tolist() == [[False] * 3, [False, True, True]]
    assert prune_lowest([ones], [full], 6, keep_inputs=True)[0].tolist() == [[False, False, True]] * 2


def test_bad_arguments():
    score, mask = torch.ones(2, 2), torch.ones(2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="count is 5"):
        prune_lowest([score], [mask], 5)
    with pytest.raises(ValueError, match="scope is 'row'"):
        prune_lowest([score], [mask], 1, scope="row")
    with pytest.raises(ValueError, match=r"scores are \[\(2, 2\)\]"):
        prune_lowest([score], [mask[:1]], 1)


def test_without_negative_weights_no_unit_turns_off_unless_inputs_are_signed():
    torch.manual_seed(0)
    layer, x = nn.Linear(6, 5).double(), torch.rand(50, 6, dtype=torch.float64)
    start = layer.weight.detach() + 0.1 * torch.randn(5, 6, dtype=torch.float64)
    mask = torch.ones(5, 6, dtype=torch.bool)
    (kept,) = prune_lowest([distance_score(layer.weight, start)], [mask], 8, eligible=[layer.weight < 0])
    assert (~kept).sum() == 8
    before, after = layer(x), nn.functional.linear(x, layer.weight * kept, layer.bias)
    assert (after >= before).all()
    assert ((after > 0) & (before <= 0)).any(), "some units turn on"
    signed = x - 0.5
    before, after = layer(signed), nn.functional.linear(signed, layer.weight * kept, layer.bias)
    assert ((after <= 0) & (before > 0)).any(), "with signed inputs, some turn off"


class Residual(nn.Module):
    """Layers of every kind: behind a function, before a sum, with a ReLU in place, with two uses of one output."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.first, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.wide, self.read, self.shifted = nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.twice, self.gelu, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        y = self.second(self.relu(self.norm(self.first(x))))
        x = nn.functional.max_pool2d(self.relu(x + y), 2)
        x = nn.functional.dropout(x.flatten(1), 0.5, self.training)
        x = self.relu(self.wide(x))
        x = self.relu(self.read(torch.cat([x[:, :4], x[:, 4:]], 1)))
        x = self.relu(self.shifted(x - 1.0))
        both = self.twice(x)
        x = self.gelu(torch.relu(both) + both)
        return self.head(nn.functional.gelu(x))


def test_where_relus_stand():
    network = Residual().train()
    x = torch.randn(2, 1, 8, 8)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            found = trace_relus(network, lambda: network(x.clone()))
        assert found.rectified == {"stem", "first", "wide", "read", "shifted"}
        assert found.nonnegative_inputs == {"first", "second", "wide", "read", "twice"}
        assert found.sources == [("relu", layer) for layer in ("first", None, "wide", "read", "shifted")]
        assert found.num_relus == 7
    assert network.norm.num_batches_tracked == 0
    assert network.training
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in network.modules())
    selu = nn.Sequential(nn.Linear(2, 2), nn.SELU(), nn.Linear(2, 2))
    assert trace_relus(selu, lambda: selu(torch.ones(1, 2))).num_relus == 0
