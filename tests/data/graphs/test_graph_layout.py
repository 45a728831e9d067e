"""The places of graphs in a block, against a loop over graphs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseq.data.graphs.layout import BlockLayout, add_in_place, add_to_entries, spread


@given(st.integers(0, 10_000), st.integers(1, 12), st.lists(st.integers(1, 5), min_size=1, max_size=5))
@settings(deadline=None)
def test_places_equal_a_loop_over_graphs(seed, num_graphs, sizes):
    random = np.random.default_rng(seed)
    entries = random.integers(0, 4, (2, num_graphs))
    offsets = np.concatenate([np.zeros((2, 1), dtype=np.int64), entries.cumsum(1)], axis=1)
    graphs = random.integers(0, num_graphs, sum(sizes))
    steps = random.integers(0, 9, (len(graphs), 2, 1))
    layout = BlockLayout(graphs, sizes, offsets)
    for group in range(2):
        in_block, pointers, parts, place = 0, [], [], 0
        for size in sizes:
            in_batch, step_sum = 0, np.zeros((2, 1))
            for number in range(size):
                graph = graphs[place]
                assert layout.begin[group, place] == sum(entries[group, :graph])
                assert layout.counts[group, place] == entries[group, graph]
                assert layout.starts[group, place] == in_block
                assert layout.before[group, place] == in_batch
                assert layout.number[place] == number
                assert (layout.sum_before(steps)[place] == step_sum).all()
                pointers.append(in_batch)
                in_block += entries[group, graph]
                in_batch += entries[group, graph]
                step_sum += steps[place]
                place += 1
            pointers.append(in_batch)
            parts.append(in_batch)
        assert layout.pointers()[group].tolist() == pointers
        assert layout.parts[group] == parts
    assert [part.tolist() for part in layout.split(graphs)] == [
        graphs[sum(sizes[:batch]) : sum(sizes[: batch + 1])].tolist() for batch in range(len(sizes))
    ]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("last", [False, True])
def test_added_to_entries_equals_a_loop(dtype, rank, last, device):
    counts, values = np.array([2, 0, 3]), np.array([5, 7, 1])
    shape = {1: [5], 2: [2, 5] if last else [5, 2], 3: [2, 2, 5] if last else [5, 2, 2]}[rank]
    target = torch.arange(int(np.prod(shape))).view(shape).to(dtype)
    expected = target.clone()
    dim = rank - 1 if last else 0
    for entry, value in enumerate([5, 5, 1, 1, 1]):
        expected.select(dim, entry).add_(value)
    added = target.to(device)
    add_to_entries(added, dim, values, counts)
    assert torch.equal(added.cpu(), expected)
    assert added.dtype == dtype


def test_spread_and_add(device):
    rows = spread(np.array([[1, 2], [3, 4]]), np.array([1, 2]), device)
    assert rows.device.type == device.type
    assert rows.tolist() == [[1, 2], [3, 4], [3, 4]]
    add_in_place(rows, torch.tensor([10, 0], device=device))
    assert rows.tolist() == [[11, 2], [13, 4], [13, 4]]
