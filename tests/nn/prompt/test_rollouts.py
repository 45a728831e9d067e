"""Packed graphs and rollouts against loops over graphs, nodes and steps; the cost that the specification states."""

import pytest
import torch

from graphseq.core import DataError
from graphseq.models import GraphEncoder
from graphseq.nn import EmbeddedGraphs, HybridPolicy, PolicyEnsemble, RewardScale, place_prompts, roll_out_prompts
from tests.nn.prompt.small import SIZES, SmallEncoder, graphs
from tests.reference import relief


def packed(encoder, batch):
    found = EmbeddedGraphs.from_batch(encoder, batch)
    order = found.by_size()
    return found.select(order), order


def loss_of(vector):
    return vector.square().sum(1) + vector[:, 0]


@pytest.mark.parametrize("max_steps", [None, 2])
def test_steps_equal_the_reference_and_rewards_telescope(max_steps):
    encoder = SmallEncoder().double()
    batch, edges = graphs()
    sorted_graphs, order = packed(encoder, batch)
    policy = HybridPolicy(4, 3, 0.5).double()
    found = roll_out_prompts(policy, sorted_graphs, encoder, loss_of, -0.5, max_steps=max_steps)
    taken = found.transitions
    per_graph = found.steps.diff().tolist()
    assert per_graph == [min(SIZES[g], max_steps or 99) for g in order.tolist()]
    for place, number in enumerate(order.tolist()):
        mine = found.by_graph[found.steps[place] : found.steps[place + 1]]
        actions = [(int(taken.node[s] - taken.ptr[s]), taken.prompt[s]) for s in mine]
        features = list(batch["x"][batch["ptr"][number] : batch["ptr"][number + 1]])
        with torch.no_grad():
            states, rewards, prompts, losses = relief.episode(
                features,
                edges[number],
                encoder.plain,
                lambda nodes: loss_of(torch.stack(nodes).mean(0)[None])[0],
                actions,
            )
        for s, state in zip(mine.tolist(), states, strict=True):
            torch.testing.assert_close(taken.h[taken.ptr[s] : taken.ptr[s + 1]], torch.stack(state))
            log_probs = policy.node_log_probs(torch.stack(state), torch.tensor([0, len(state)]))
            torch.testing.assert_close(taken.node_log_prob[s], log_probs[taken.node[s] - taken.ptr[s]].detach())
            assert int(found.num_nodes[s]) == len(state)
        torch.testing.assert_close(found.reward[mine], torch.stack(rewards))
        here = slice(int(sorted_graphs.ptr[place]), int(sorted_graphs.ptr[place + 1]))
        torch.testing.assert_close(found.prompt[here], torch.stack(prompts))
        torch.testing.assert_close(
            found.reward[mine].sum(), found.loss[place] - found.final_loss[place], atol=1e-10, rtol=0
        )
        torch.testing.assert_close(found.final_loss[place], losses[-1])


def test_advantages_equal_those_of_each_graph():
    encoder = SmallEncoder().double()
    sorted_graphs, _ = packed(encoder, graphs()[0])
    found = roll_out_prompts(HybridPolicy(4, 3).double(), sorted_graphs, encoder, loss_of, 0.0)
    value = torch.randn_like(found.reward)
    advantage = found.advantages(found.reward, value, 0.9, 0.8)
    for place in range(len(sorted_graphs)):
        mine = found.by_graph[found.steps[place] : found.steps[place + 1]]
        expected = relief.advantages(found.reward[mine].tolist(), value[mine].tolist(), 0.9, 0.8)
        torch.testing.assert_close(advantage[mine], torch.tensor(expected, dtype=torch.float64))


def test_cost_is_one_pass_a_graph_for_each_of_its_nodes_and_one_more():
    encoder = SmallEncoder()
    sorted_graphs, _ = packed(encoder, graphs(torch.float32)[0])
    encoder.passes = 0
    roll_out_prompts(HybridPolicy(4, 3), sorted_graphs, encoder, loss_of, 0.0)
    assert encoder.passes == sum(SIZES) + len(SIZES)


def test_a_wider_batch_changes_nothing():
    """Largest graph of the batch or of the data set: the actions of one graph depend on it alone."""
    encoder = SmallEncoder()
    batch, _ = graphs(torch.float32)
    whole, order = packed(encoder, batch)
    ensemble = PolicyEnsemble([HybridPolicy(4, 3), HybridPolicy(4, 3)])
    together = place_prompts(ensemble, whole, encoder, most_likely=True)
    for place in range(len(order)):
        alone = place_prompts(ensemble, whole.select(torch.tensor([place])), encoder, most_likely=True)
        here = slice(int(whole.ptr[place]), int(whole.ptr[place + 1]))
        torch.testing.assert_close(alone, together[here])


def test_prompts_accumulate_on_a_node_chosen_again():
    encoder = SmallEncoder()
    alone, _ = packed(encoder, graphs(torch.float32, sizes=[6])[0])
    policy = HybridPolicy(4, 3)
    found = roll_out_prompts(policy, alone, encoder, loss_of, 0.0)
    taken = found.transitions
    expected = torch.zeros(6, 3).index_add(0, taken.node - taken.ptr[:-1], taken.prompt)
    torch.testing.assert_close(found.prompt, expected)
    assert int((found.prompt != 0).any(1).sum()) < 6  # for this seed a node was chosen twice


def test_no_prompt_is_no_change_of_the_encoder():
    encoder = GraphEncoder(3, 8, conv="gine", edge_categories=[4], virtual_node=True).eval()
    batch, _ = graphs(torch.float32)
    batch["edge_attr"] = torch.randint(4, (batch["edge_index"].size(1), 1))
    found = EmbeddedGraphs.from_batch(encoder, batch)
    expected = encoder.encode(batch["x"], batch["edge_index"], None, batch["edge_attr"], batch["ptr"])
    for ours, theirs in zip(found.encode(encoder, torch.zeros_like(found.h)), expected, strict=True):
        torch.testing.assert_close(ours, theirs)  # edges in another order


def test_selection_and_slices_hold_the_graphs():
    encoder = SmallEncoder().double()
    batch, edges = graphs()
    found = EmbeddedGraphs.from_batch(encoder, batch)
    some = found.select(torch.tensor([3, 0]))
    assert some.num_nodes.tolist() == [SIZES[3], SIZES[0]]
    assert some.batch.tolist() == [0] * SIZES[3] + [1] * SIZES[0]
    assert sorted(map(tuple, (some.edge_index[:, : some.num_edges[0]]).T.tolist())) == sorted(map(tuple, edges[3]))
    first = some.first(1)
    assert torch.equal(first.h, found.h[batch["ptr"][3] :])
    assert first.h.data_ptr() == some.h.data_ptr()
    torch.testing.assert_close(first.encode(encoder)[0][0], some.encode(encoder)[0][0])


def test_layouts_of_a_batch():
    encoder = SmallEncoder().double()
    batch, _ = graphs()
    expected = EmbeddedGraphs.from_batch(encoder, batch)
    index = torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES))
    by_index = EmbeddedGraphs.from_batch(encoder, {**batch, "ptr": None, "batch": index})
    assert torch.equal(by_index.ptr, expected.ptr)
    with pytest.raises(DataError, match="nodes of a graph do not follow one another"):
        EmbeddedGraphs.from_batch(encoder, {**batch, "ptr": None, "batch": index.flip(0)})
    with pytest.raises(DataError, match="without x or edge_index"):
        EmbeddedGraphs.from_batch(encoder, {"x": batch["x"]})


def test_refuses():
    encoder = SmallEncoder()
    batch, _ = graphs(torch.float32)
    policy = HybridPolicy(4, 3)
    with pytest.raises(ValueError, match="not sorted"):
        roll_out_prompts(policy, EmbeddedGraphs.from_batch(encoder, batch), encoder, loss_of, 0.0)
    sorted_graphs, _ = packed(encoder, batch)
    with pytest.raises(ValueError, match="max_steps is 0"):
        roll_out_prompts(policy, sorted_graphs, encoder, loss_of, 0.0, max_steps=0)
    empty, _ = packed(
        encoder, {"x": torch.ones(0, 3), "edge_index": torch.ones(2, 0).long(), "ptr": torch.tensor([0, 0])}
    )
    with pytest.raises(ValueError, match="no graph has a node"):
        roll_out_prompts(policy, empty, encoder, loss_of, 0.0)


def test_rewards_are_scaled_by_all_that_were_seen():
    parts = torch.randn(3, 7, dtype=torch.float64) * 5 + 2
    for mode in ("std", "zscore"):
        scale = RewardScale(mode)
        for number in range(3):
            found = scale(parts[number])
            seen = parts[: number + 1]
            shift = seen.mean() if mode == "zscore" else 0
            torch.testing.assert_close(found, (parts[number] - shift) / seen.std(correction=0))
    assert RewardScale("none")(parts) is parts
    assert RewardScale("std")(torch.full((3,), 0.25)).tolist() == [0.25] * 3
    with pytest.raises(ValueError, match="reward_scaling is 'mean'"):
        RewardScale("mean")
