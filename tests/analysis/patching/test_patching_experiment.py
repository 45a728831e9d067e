import copy

import pytest
import torch
from scipy import stats
from torch import nn

from graphseq.analysis import (
    LogitDifference,
    PatchingExperiment,
    PatchingScores,
    PatchingSite,
    block_sites,
    draw_patching_scores,
)
from graphseq.core import make
from graphseq.models import NodeClassifier, TransformerLanguageModel
from graphseq.nn import BlockStack, CausalAttention, FeedForward, PreNorm, SequenceBlock

CLEAN, CORRUPTED = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 1]]), torch.tensor([[1, 5, 3, 4], [5, 2, 2, 1]])
METRIC = LogitDifference(torch.tensor([3, 4]), torch.tensor([0, 2]))


@pytest.fixture(scope="module")
def transformer():
    torch.manual_seed(0)
    block = SequenceBlock(CausalAttention(8, 2, dropout=0.5), FeedForward(8, 16), PreNorm(8, make(nn.LayerNorm, 8)))
    model = TransformerLanguageModel(7, BlockStack([block], repeats=2), dropout=0.5).double()
    return model.requires_grad_(False)  # frozen networks can be asked, too


def by_hand(model, ids, exchange):
    """Metric of the transformer, block by block, with one activation exchanged; and all activations."""
    x, seen = model.embedding(ids), {}

    def at(name, number, value):
        seen[name, number] = value
        return exchange(name, number, value)

    for number, block in enumerate(model.layers.blocks):
        x = at("residual", number, x)
        x = x + at("attention", number, block.mixer(block.mixer_residual.norm(x))[0])
        x = x + at("mlp", number, block.feed_forward(block.feed_forward_residual.norm(x)))
    logits = model.head(model.layers.norm(x))[:, -1]
    total = sum(logits[row, METRIC.correct[row]] - logits[row, METRIC.wrong[row]] for row in range(len(ids)))
    return total / len(ids), seen


def test_activation_patching_is_a_run_for_each_layer_and_position(transformer):
    transformer.train()
    model = copy.deepcopy(transformer).eval()
    base, _ = by_hand(model, CORRUPTED, lambda name, number, value: value)
    _, clean = by_hand(model, CLEAN, lambda name, number, value: value)
    found = PatchingExperiment(transformer, block_sites(), METRIC).activation_patching(CLEAN, CORRUPTED)
    assert all(module.training for module in transformer.modules())
    assert found.layers["mlp"] == ["layers.blocks.0.feed_forward", "layers.blocks.1.feed_forward"]
    for site in ("residual", "attention", "mlp"):
        for layer in range(2):
            for position in range(4):

                def exchange(name, number, value, place=(site, layer), position=position):
                    if (name, number) == place:
                        value = value.clone()
                        value[:, position] = clean[place][:, position]
                    return value

                expected = by_hand(model, CORRUPTED, exchange)[0] - base
                assert float(found.values[site][layer, position]) == pytest.approx(float(expected), abs=1e-12)
    assert float(found.values["residual"].abs().max()) > 1e-3


def test_attribution_is_the_derivative_towards_the_clean_activation(transformer):
    model = copy.deepcopy(transformer).eval()
    _, clean = by_hand(model, CLEAN, lambda name, number, value: value)
    found = PatchingExperiment(transformer, block_sites(), METRIC).attribution_patching(CLEAN, CORRUPTED)
    for place, position in ((("residual", 0), 1), (("attention", 0), 2), (("mlp", 1), 3), (("residual", 1), 3)):
        sides = []
        for step in (1e-5, -1e-5):

            def exchange(name, number, value, step=step, place=place, position=position):
                if (name, number) == place:
                    value = value.clone()
                    value[:, position] += step * (clean[place] - value)[:, position]
                return value

            sides.append(by_hand(model, CORRUPTED, exchange)[0])
        slope = float(sides[0] - sides[1]) / 2e-5
        assert float(found.values[place[0]][place[1], position]) == pytest.approx(slope, rel=1e-6, abs=1e-10)
    relevant = PatchingExperiment(transformer, block_sites(), METRIC).relevance_patching(CLEAN, CORRUPTED)
    assert not torch.allclose(relevant.values["residual"], found.values["residual"], rtol=0.05)
    none = PatchingExperiment(transformer, block_sites(), METRIC).relevance_patching(CLEAN, CORRUPTED, [])
    assert all(torch.equal(none.values[name], value) for name, value in found.values.items())


def test_all_three_agree_on_a_linear_network():
    network = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3))).double()
    experiment = PatchingExperiment(network, [PatchingSite("all", "*"), PatchingSite("in", "[12]", "input")],
                                    lambda y: y[:, -1].mean() + y[:, 0].sum())  # fmt: skip
    clean, corrupted = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    exact = experiment.activation_patching(clean, corrupted)
    for estimate in (experiment.attribution_patching, experiment.relevance_patching):
        for site, value in estimate(clean, corrupted).values.items():
            assert torch.allclose(value, exact.values[site], rtol=1e-9, atol=1e-12)
    whole = network(clean)[:, -1].mean() + network(clean)[:, 0].sum()
    whole = whole - network(corrupted)[:, -1].mean() - network(corrupted)[:, 0].sum()
    assert torch.allclose(exact.values["all"].sum(1), whole.detach().expand(3))  # each layer carries all of it


def test_costs(transformer, monkeypatch):
    runs = []
    handle = transformer.register_forward_hook(lambda *_: runs.append("forward"))
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *given, **rest: runs.append("backward") or grad(*given, **rest))
    experiment = PatchingExperiment(transformer, block_sites(), METRIC)
    for estimate in (experiment.attribution_patching, experiment.relevance_patching):
        runs.clear()
        estimate(CLEAN, CORRUPTED)
        assert runs == ["forward", "forward", "backward"]
    runs.clear()
    experiment.activation_patching(CLEAN, CORRUPTED)
    assert runs == ["forward"] * (2 + 3 * 2 * 4)
    handle.remove()
    assert all(parameter.grad is None for parameter in transformer.parameters())


def test_nodes_of_a_graph_are_positions():
    torch.manual_seed(0)
    network = NodeClassifier(3, 2, hidden_channels=8, num_layers=2, conv="gat", norm="layer", output="linear")
    edges = torch.tensor([[0, 1, 2, 3, 1, 4], [1, 0, 1, 2, 3, 3]])
    clean, corrupted = torch.randn(2, 5, 3)
    site = PatchingSite("node", "encoder.convs.*", axis=0)
    experiment = PatchingExperiment(network, [site], lambda y: y[1, 0] - y[1, 1])
    exact = experiment.activation_patching((clean, edges), (corrupted, edges))
    network.eval()
    with torch.no_grad():
        base, last = network(corrupted, edges), network.get_submodule("encoder.convs.1")
        kept = []
        handle = last.register_forward_hook(lambda module, args, y: kept.append(y))
        network(clean, edges)
        handle.remove()
        for node in range(5):
            handle = last.register_forward_hook(
                lambda module, args, y, node=node: torch.where(torch.arange(5)[:, None] == node, kept[0], y)
            )
            y = network(corrupted, edges)
            handle.remove()
            expected = (y[1, 0] - y[1, 1]) - (base[1, 0] - base[1, 1])
            assert float(exact.values["node"][1, node]) == pytest.approx(float(expected), abs=1e-6)
    found = experiment.relevance_patching((clean, edges), (corrupted, edges), ("ln", "identity", "half", "ah"))
    assert found.values["node"].shape == (2, 5)
    assert (exact.values["node"][1, [0, 2, 3, 4]] == 0).all()  # only node 1 itself is left after the last layer
    assert found.values["node"][1, 1] != 0
    with pytest.raises(ValueError, match="argument 1"):
        experiment.attribution_patching((clean, edges), (corrupted, edges.flip(0)))


def test_attribution_on_a_graph_is_the_limit_of_small_changes():
    torch.manual_seed(0)
    network = NodeClassifier(3, 2, hidden_channels=8, num_layers=2, conv="gat", norm="layer", output="linear").double()
    edges = torch.tensor([[0, 1, 2, 3, 1, 4], [1, 0, 1, 2, 3, 3]])
    experiment = PatchingExperiment(
        network,
        [PatchingSite("node", "encoder.convs.*", axis=0), PatchingSite("in", "encoder.convs.*", "input", axis=0)],
        lambda y: (y[1, 0] - y[1, 1]).square(),
    )
    corrupted, change = torch.randn(2, 5, 3, dtype=torch.float64)
    gaps = []
    for size in (1e-2, 1e-4):
        given = (corrupted + size * change, edges), (corrupted, edges)
        exact, estimate = experiment.activation_patching(*given), experiment.attribution_patching(*given)
        gaps.append([float((exact.values[site] - found).norm() / found.norm())
                     for site, found in estimate.values.items()])  # fmt: skip
    for large, small in zip(*gaps, strict=True):
        assert small < 1e-3
        assert small == pytest.approx(large / 100, rel=0.2)  # what is left is of the second order


def test_torchs_own_layers_are_patched():
    network = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu"), 2)
    sites = [PatchingSite("residual", "layers.*", "input"), PatchingSite("attention", "layers.*.self_attn"),
             PatchingSite("mlp", "layers.*.linear2")]  # fmt: skip
    experiment = PatchingExperiment(network, sites, lambda y: y[:, 0, 0].sum())
    clean, corrupted = torch.randn(2, 3, 4, 8)
    assert all(value.abs().max() > 0 for value in experiment.activation_patching(clean, corrupted).values.values())
    fast = torch.backends.mha.get_fastpath_enabled()
    assert fast is True
    plain, found = experiment.attribution_patching(clean, corrupted), experiment.relevance_patching(clean, corrupted)
    assert all(not torch.allclose(plain.values[name], value) for name, value in found.values.items())


@pytest.mark.parametrize(
    ("layers", "match"),
    [("blocks.*", "'blocks.*'"), ("layers.blocks.7", "layers.blocks.0.mixer"), ("layers.*.mixer", "names no layer")],
)
def test_layers_that_do_not_exist(transformer, layers, match):
    with pytest.raises(ValueError, match=match.replace("*", r"\*")):
        PatchingExperiment(transformer, [PatchingSite("any", layers)], METRIC)


def test_inputs_that_do_not_correspond(transformer):
    experiment = PatchingExperiment(transformer, block_sites(), METRIC)
    for estimate in (experiment.activation_patching, experiment.attribution_patching, experiment.relevance_patching):
        with pytest.raises(ValueError, match=r"\(2, 4\) in clean and \(2, 3\)"):
            estimate(CLEAN, CORRUPTED[:, :3])
        with pytest.raises(ValueError, match="argument 1 differs"):
            estimate((CLEAN, torch.tensor([2, 2])), (CORRUPTED, torch.tensor([2, 1])))
        with pytest.raises(ValueError, match="clean has 2"):
            estimate((CLEAN, None), CORRUPTED)


def test_sites_and_metrics_that_do_not_fit(transformer):
    with pytest.raises(ValueError, match="'middle'"):
        PatchingSite("a", "layers", "middle")
    with pytest.raises(ValueError, match=r"\['a', 'a'\]"):
        PatchingExperiment(transformer, [PatchingSite("a", "head"), PatchingSite("a", "embedding")], METRIC)
    with pytest.raises(ValueError, match="at least one"):
        PatchingExperiment(transformer, [], METRIC)
    with pytest.raises(ValueError, match="scalar"):
        PatchingExperiment(transformer, block_sites(), lambda y: y).attribution_patching(CLEAN, CORRUPTED)
    tokens = PatchingExperiment(transformer, [PatchingSite("tokens", "embedding", "input")], METRIC)
    with pytest.raises(TypeError, match="int64"):
        tokens.attribution_patching(CLEAN, CORRUPTED)
    layer = nn.Linear(3, 3)
    twice = PatchingExperiment(nn.Sequential(layer, nn.ReLU(), layer), [PatchingSite("a", "0")], lambda y: y.sum())
    with pytest.raises(ValueError, match="ran 2 times"):
        twice.activation_patching(torch.ones(1, 2, 3), torch.zeros(1, 2, 3))


def test_answers_and_inputs_are_checked(transformer):
    with pytest.raises(ValueError, match=r"B = 1"):
        LogitDifference(torch.tensor([1]), torch.tensor([0]))(torch.zeros(3, 5, 9))
    with pytest.raises(ValueError, match=r"correct is \[1\]"):
        LogitDifference([1], torch.tensor([0]))
    with pytest.raises(ValueError, match="1 correct answers and 2 wrong"):
        LogitDifference(torch.tensor([1]), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="step is 7"):
        LogitDifference(torch.tensor([1]), torch.tensor([0]), 7)(torch.zeros(1, 5, 9))
    with pytest.raises(TypeError, match="sites is"):
        PatchingExperiment(transformer, PatchingSite("a", "head"), METRIC)
    experiment = PatchingExperiment(transformer, block_sites(), METRIC)
    with pytest.raises(TypeError, match="clean is a list"):
        experiment.activation_patching([CLEAN], [CORRUPTED])
    with pytest.raises(ValueError, match="at least one prompt"):
        experiment.activation_patching(CLEAN[:0], CORRUPTED[:0])
    with pytest.raises(ValueError, match="rules is 'ln'"):
        experiment.relevance_patching(CLEAN, CORRUPTED, "ln")
    with pytest.raises(ValueError, match="metric has no gradient"), torch.inference_mode():
        experiment.attribution_patching(CLEAN, CORRUPTED)
    with pytest.raises(ValueError, match=r"axis is 7, and the output .* \(2, 4, 7\)"):
        PatchingExperiment(transformer, [PatchingSite("a", "head", axis=7)], METRIC).activation_patching(
            CLEAN, CORRUPTED
        )


def test_scores_agree_as_statistics_say():
    torch.manual_seed(0)
    one, two = torch.randint(-4, 5, (2, 3, 6)).double()
    ours, theirs = PatchingScores({"a": one}), PatchingScores({"a": two})
    assert ours.pearson(theirs)["a"] == pytest.approx(stats.pearsonr(one.flatten(), two.flatten()).statistic)
    assert ours.spearman(theirs)["a"] == pytest.approx(stats.spearmanr(one.flatten(), two.flatten()).statistic)
    assert ours.pearson(PatchingScores({"a": -one}))["a"] == pytest.approx(-1)
    few = PatchingScores({"a": torch.tensor([[9.0, -8, 1, 2]])}), PatchingScores({"a": torch.tensor([[1.0, -8, 0, 9]])})
    assert few[0].topk_overlap(few[1], 2) == {"a": 0.5}
    assert few[0].at(1, 3).values["a"].tolist() == [[-8, 1]]
    with pytest.raises(ValueError, match="k is 5"):
        few[0].topk_overlap(few[1], 5)
    with pytest.raises(ValueError, match=r"\(1, 4\)"):
        few[0].pearson(ours)


def test_figure_has_one_scale_for_each_site():
    scores = PatchingScores({"mlp": torch.tensor([[1.0, -3.0]]), "residual": torch.tensor([[0.5, 0.1]])})
    other = PatchingScores({"mlp": torch.tensor([[2.0, -1.0]]), "residual": torch.tensor([[0.5, 0.2]])})
    figure = draw_patching_scores({"ActP": scores, "RelP": other}, ["a", "b"])
    images = [axes.images[0] for axes in figure.axes[:4]]
    assert [image.get_clim() for image in images] == [(-3, 3), (-3, 3), (-0.5, 0.5), (-0.5, 0.5)]
    assert figure.axes[1].get_title(loc="left") == "RelP: mlp, Pearson 1.000"
    with pytest.raises(ValueError, match="empty"):
        draw_patching_scores({})
    with pytest.raises(ValueError, match="positions has 3 names; the site 'mlp' has 2"):
        draw_patching_scores({"ActP": scores}, ["a", "b", "c"])


def test_a_constant_has_no_correlation():
    one, two = (
        PatchingScores({"m": torch.full((1, 3), 0.1, dtype=torch.float64)}),
        PatchingScores({"m": torch.randn(1, 3)}),
    )
    assert one.pearson(two)["m"] != one.pearson(two)["m"]  # NaN, not the rounding of a mean
