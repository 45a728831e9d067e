"""The experiments on prompts: what the bandit measures and decides, and that both layouts of rollouts are the same."""

import dataclasses

import pytest
import torch
from torch import nn

from experiments.prompt import arms, relief_bandit, relief_forms, relief_molecules, relief_nodes, relief_rollout
from graphseq.bench import OutputsDiffer, load_experiment
from graphseq.models import GraphEncoder
from graphseq.nn import GPF, EmbeddedGraphs, HybridPolicy
from graphseq.tasks import PromptTuning
from tests.nn.prompt.small import graphs


@pytest.fixture
def subject(monkeypatch):
    monkeypatch.setattr(relief_rollout, "_WIDTH", 6)
    monkeypatch.setattr(relief_rollout, "_BATCH", 3)
    monkeypatch.setattr(relief_rollout, "_MINIBATCH", 8)
    batch, _ = graphs(torch.float32, sizes=[3, 5, 1, 4, 4])
    encoder = GraphEncoder(3, 6, 2, virtual_node=True).eval()
    packed = EmbeddedGraphs.from_batch(encoder, batch)
    target = torch.tensor([[1.0, 0.0], [float("nan"), 1.0], [0.0, 0.0], [1.0, 1.0], [0.0, float("nan")]])
    order = packed.by_size()
    return relief_rollout.Subject(
        packed.select(order), 7, encoder, HybridPolicy(6, 6), nn.Linear(6, 2), target[order], passes=2
    )


def test_padded_rollouts_are_the_packed_ones(subject):
    found = relief_rollout.same_steps(subject)
    assert found["transitions"] == 17
    assert found["difference"] < 1e-5
    assert relief_rollout.packed(subject)() == 17
    assert relief_rollout.padded(subject)() == 17  # two batches


@pytest.mark.parametrize("fault", ["mask", "values", "advantages"])
def test_a_difference_is_found(subject, fault, monkeypatch):
    if fault == "mask":
        monkeypatch.setattr(
            relief_rollout.Padded,
            "_actors",
            lambda self, state, mask, actors=relief_rollout.Padded._actors: actors(
                self, state, mask.logical_not() | mask
            ),
        )
    elif fault == "values":
        monkeypatch.setattr(
            relief_rollout.Padded, "values", lambda self, state: self.critic.layers(state.flip(1).flatten(1)).squeeze(1)
        )
    else:
        monkeypatch.setattr(relief_rollout, "_DECAY", 0.5)
        original = relief_rollout.Padded.advantages

        def other(self, steps, reward, value):
            monkeypatch.setattr(relief_rollout, "_DECAY", 0.9)
            return original(self, steps, reward, value)

        monkeypatch.setattr(relief_rollout.Padded, "advantages", other)
    with pytest.raises(OutputsDiffer, match="differ by"):
        relief_rollout.same_steps(subject)


def test_memory_is_claimed_on_sider_alone():
    rows = [{"data": "bbbp", "peak_mb": {"packed": 9000.0}}, {"data": "sider", "peak_mb": {"packed": 300.0}}]
    assert relief_rollout._memory(rows)[0].holds
    assert not relief_rollout._memory(rows[:1])


def test_the_bandit_rewards_the_known_prompt():
    """On marked nodes, along x_2, in the direction of the label: the loss falls; elsewhere it stays."""
    made = relief_bandit.graphs(40, torch.Generator().manual_seed(0))
    encoder, head = relief_bandit.BanditEncoder(), relief_bandit.fixed_head()

    def loss(marked):
        total = 0.0
        for graph in made:
            prompt = torch.zeros_like(graph.x)
            prompt[graph.marked == marked, 2] = 0.5 * (2 * graph.y[0, 0] - 1)
            zeros = torch.zeros(12, dtype=torch.int64)
            vector, _ = encoder.encode_embedded(graph.x + prompt, graph.edge_index, zeros, None, torch.tensor([0, 12]))
            total += float(nn.functional.binary_cross_entropy_with_logits(head(vector), graph.y))
        return total / len(made)

    assert loss(True) < 0.6 * loss(False)
    assert not any(parameter.requires_grad for parameter in head.parameters())


def test_a_cell_of_the_bandit_measures_where_prompts_are():
    made = load_experiment("effect.relief_bandit")
    row = made.run({"arm": "random", "seed": 3}, "quick")
    assert row["mass"] == pytest.approx(1, abs=0.02)
    assert row["pcr"] == pytest.approx(1 - (1 - 1 / 12) ** 12, abs=0.01)
    assert row["return"] < 0.02
    trained = made.run({"arm": "random prompts", "seed": 3}, "quick")
    assert trained.keys() == row.keys()


def test_the_gate_of_the_bandit():
    made = load_experiment("effect.relief_bandit")

    def verdict(policy, mass=2.5, controls=0.05):
        worth = {"policy": policy, "random": -0.02, "uniform nodes": controls, "random prompts": 0.0}
        rows = [
            {**cell, "return": worth[cell["arm"]] + 0.01 * (cell["seed"] % 2), "mass": mass, "pcr": 0.4}
            for cell in made.cells("default", None)
        ]
        return made.conclude(
            [{**row, "return": row["return"] + 1e-3 * row["seed"] * (row["arm"] == "policy")} for row in rows]
        ).verdict

    assert verdict(-0.2) == "reproduced"  # 0.3 with the slope over seeds
    assert verdict(-0.2, controls=0.9) == "partly"
    assert verdict(-0.2, mass=1.9) == "not reproduced"
    assert verdict(-0.45) == "not reproduced"


def test_the_declaration_of_rollouts():
    made = load_experiment("speed.relief_rollout")
    assert [case["data"] for case in made.cells("default", 1)] == ["bbbp", "bbbp", "sider"]
    assert dataclasses.is_dataclass(relief_rollout.Subject)


@pytest.mark.parametrize(("module", "places"), [(relief_molecules, 2), (relief_nodes, 2)])
def test_the_declaration_of_few_shots(module, places):
    """Controls are arms, the head is trained by as many steps in each, and what is compared shares seed and encoder."""
    made, length = module.effect, module.LENGTHS["default"]
    assert {"from scratch", "linear head", "fine-tuning", "random prompts", arms.UNIFORM, arms.EQUAL} <= set(made.arms)
    cells = made.cells("default", None)
    assert len(cells) == places * len(made.arms) * made.seeds.default
    assert made.seeds.default >= 5
    steps = {}
    for arm in made.arms:
        given = length.of(arm, passes=58)
        assert given["trainer.max_epochs"] == length.validations * given["trainer.check_val_every_n_epoch"]
        config = made.config_of({**cells[0], "arm": arm, "seed": 7}, "default")
        assert config["data"]["init_args"]["seed"] == config["seed_everything"] == 7
        steps[arm] = given["trainer.max_epochs"] * config["model"]["init_args"].get("head_steps", 1)
    assert steps.pop(arms.EQUAL) == 58 * length.epochs
    assert set(steps.values()) == {length.epochs * arms.HEAD_STEPS}


def test_an_encoder_is_trained_once_and_taken_by_path(tmp_path, monkeypatch):
    monkeypatch.setattr(arms, "cache_folder", lambda: tmp_path)
    built = []

    class Trainer:
        def fit(self, task, data):
            built.append((task, data))

        def save_checkpoint(self, path):
            path.write_text("weights")

    def build(config, callbacks, default_root_dir):
        assert default_root_dir != "."  # checkpoints of the training itself are not left behind
        return config["trainer"], None, Trainer()

    monkeypatch.setattr(arms, "build", build)
    config = "configs/graph/pretrain_links_cora.yaml"
    first = arms.pretrained(config, "quick", {"trainer.max_epochs": 3})
    assert first.read_text() == "weights"
    assert arms.pretrained(config, "quick", {"trainer.max_epochs": 3}) == first
    assert arms.pretrained(config, "quick", {"trainer.max_epochs": 4}) != first
    assert [task["max_epochs"] for task, _ in built] == [3, 4]
    assert not list(tmp_path.rglob("*.partial"))


def test_forms_change_what_they_say_and_train_the_head_as_long():
    made = relief_forms.effect
    assert len(made.cells("default", None)) == 5 * (len(relief_forms.CHANGES) + len(relief_forms.OTHERS))
    given = {arm: made.config_of({"arm": arm, "seed": 320}, "default")["model"]["init_args"] for arm in made.arms}
    usual = given[arms.RELIEF]
    for arm, changes in relief_forms.CHANGES.items():
        changed = {name for name, value in given[arm].items() if usual.get(name) != value}
        assert changed == {key.removeprefix("model.") for key in changes}
    steps = {arm: given[arm]["head_steps"] * given[arm].get("head_passes", 1) for arm in relief_forms.CHANGES}
    assert {each * relief_forms.LENGTHS["default"].epochs for each in steps.values()} == {240}


def test_what_prompts_add_is_measured_on_the_same_head():
    batch, _ = graphs(torch.float32, sizes=[3, 5, 1, 4, 4])
    batch["y"] = torch.tensor([[1.0], [0.0], [float("nan")], [1.0], [0.0]])
    torch.manual_seed(0)
    task = PromptTuning(GraphEncoder(3, 6, 2).eval(), num_outputs=1, prompt=GPF)

    class Batches:
        def train_dataloader(self):
            return [batch]

        test_dataloader = train_dataloader

    with torch.no_grad():
        task.prompt.prompt.zero_()
        nothing = relief_forms.measure(task, Batches())
        task.prompt.prompt.normal_(std=3.0)
        found = relief_forms.measure(task, Batches())
        vector = EmbeddedGraphs.from_batch(task.encoder, batch).encode(task.encoder)[0]
        logits = task.head(vector)
        with_prompts = task(batch)
    known = torch.tensor([0, 1, 3, 4])
    loss = nn.BCEWithLogitsLoss()
    decrease = loss(logits[known], batch["y"][known]) - loss(with_prompts[known], batch["y"][known])
    assert nothing["return"] == 0
    assert found["return"] == pytest.approx(float(decrease), rel=1e-4)
    assert abs(found["return"]) > 1e-4
    assert found["bare"] == nothing["bare"]  # the prompts play no part in it
    positive, negative = logits[[0, 3], 0], logits[[1, 4], 0]
    assert found["bare"] == pytest.approx(float((positive[:, None] > negative).float().mean()))
