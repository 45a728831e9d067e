"""Rollouts and updates of prompt policies on packed graphs, beside graphs padded to the largest of the data set.

Both place prompts on the same molecules, as many as each has atoms, with a frozen GINE of 3 layers and width 64, and
take 10 passes of proximal policy optimisation, the default (``quick``: 2), in minibatches of 64 over the transitions.

* *packed*: ``roll_out_prompts`` and ``ProximalPolicyLoss``: all molecules of the case in one rollout, states of
  different sizes one after the other, no work on molecules that are done, a mean for the prompt of the chosen atom
  only, and the pooled critic, the default.
* *padded*, the layout of the released code in words of our own: molecules in batches of 8, as published; each state is
  padded with zeros to the largest molecule of the data set, the encoder runs on all 8 until the last one is done, both
  actors see every row, padding too, and the critic takes the flattened state: its layers have M, 0.05 M, 0.025 M and 1
  outputs for M entries.

Before anything is timed, the padded form replays the actions of the packed one: log-probabilities of nodes and of
prompts, rewards, values of one and the same flattened critic, and advantages are compared.

``bbbp`` are molecules drawn from the training split, 8 or the 50 of a published few-shot set; ``sider`` are the largest
molecule, of 492 atoms, and 7 drawn ones. Peak memory is that of a rollout with its update, beyond the weights.

Rule: (1) packed takes at most a fifth of the time of padded on the 50 molecules of BBBP; (2) packed needs less than 4
GB on SIDER.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphseq.bench import AtLeast, Call, Check, OutputsDiffer, Row, Scale, Setting, Speed
from graphseq.data import MoleculeDataModule
from graphseq.models import GraphEncoder
from graphseq.nn import (
    EmbeddedGraphs,
    FlattenCritic,
    HybridPolicy,
    PolicyEnsemble,
    PoolCritic,
    ProximalPolicyLoss,
    roll_out_prompts,
)

__all__ = ["Padded", "Subject", "packed", "padded", "prepare", "same_steps", "speed"]

_BATCH, _WIDTH, _MINIBATCH, _LOG_STD = 8, 64, 64, -0.5
_PASSES = {"quick": 2, "default": 10, "full": 10}
_DISCOUNT, _DECAY, _CLIP, _ENTROPY = 0.99, 0.95, 0.2, 0.01


@dataclass
class Subject:
    """Molecules from the largest to the smallest, with the parts that both layouts use."""

    graphs: EmbeddedGraphs
    max_nodes: int
    encoder: GraphEncoder
    policy: HybridPolicy
    head: nn.Linear
    target: Tensor
    passes: int

    def losses(self, vector: Tensor) -> Tensor:
        """Return the loss of each of the first graphs, the mean over its known labels."""
        target = self.target[: len(vector)]
        known = ~torch.isnan(target)
        logits = self.head(vector)
        each = functional.binary_cross_entropy_with_logits(logits, torch.where(known, target, 0), reduction="none")
        return (each * known).sum(1) / known.sum(1).clamp(min=1)


def prepare(case: Row, setting: Setting) -> Subject:
    """Draw the molecules of a case, and build encoder, policy and head."""
    torch.manual_seed(0)
    data = MoleculeDataModule(case["data"])
    sizes = data.graphs.num_nodes
    chosen = data.splits["train"][torch.randperm(len(data.splits["train"]))[: case["graphs"]]]
    if case["data"] == "sider":
        chosen[0] = sizes.argmax()
    batch = data.graphs.take(chosen).to(setting.device)
    options = {"node_categories": data.node_categories, "edge_categories": data.edge_categories}
    encoder = GraphEncoder(data.num_features, _WIDTH, 3, "gine", **options).to(setting.device).eval()
    graphs = EmbeddedGraphs.from_batch(encoder, batch)
    order = graphs.by_size()
    return Subject(
        graphs.select(order),
        int(sizes.max()),
        encoder,
        HybridPolicy(_WIDTH, _WIDTH, 0.1).to(setting.device),
        nn.Linear(_WIDTH, data.num_outputs).to(setting.device),
        batch.y[order.to(setting.device)],
        _PASSES[setting.scale],
    )


class Passes:
    """Passes over transitions in minibatches, the same in both layouts."""

    def __init__(self, number: int, *modules: nn.Module) -> None:
        self.number = number
        self.parameters = [parameter for module in modules for parameter in module.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=5e-4, eps=1e-5, fused=True)

    def __call__(self, count: int, loss_of: Callable[[Tensor], Tensor]) -> int:
        for _ in range(self.number):
            for chosen in torch.randperm(count).tensor_split(max(1, count // _MINIBATCH)):
                self.optimizer.zero_grad()
                loss_of(chosen).backward()
                nn.utils.clip_grad_norm_(self.parameters, 0.5)
                self.optimizer.step()
        return count


def _scaled(reward: Tensor) -> Tensor:
    return reward / reward.std(correction=0).clamp(min=1e-8)


def _normalized(advantage: Tensor) -> Tensor:
    return (advantage - advantage.mean()) / (advantage.std() + 1e-8)


def packed(subject: Subject) -> Call:
    """Return a rollout with its update, as the task takes them."""
    ensemble = PolicyEnsemble([copy.deepcopy(subject.policy)])
    critic = PoolCritic(_WIDTH).to(subject.graphs.h.device)
    loss = ProximalPolicyLoss(node_clip=_CLIP, prompt_clip=_CLIP, entropy_weight=_ENTROPY)
    passes = Passes(subject.passes, ensemble, critic)

    def call() -> int:
        rollout = roll_out_prompts(ensemble[0], subject.graphs, subject.encoder, subject.losses, _LOG_STD)
        taken = rollout.transitions
        with torch.no_grad():
            value = critic(taken.h, taken.ptr)
        advantage = rollout.advantages(_scaled(rollout.reward), value, _DISCOUNT, _DECAY)
        returns, advantage = advantage + value, _normalized(advantage)

        def of(chosen: Tensor) -> Tensor:
            index = chosen.to(advantage.device)
            some = taken.select(index, int(rollout.num_nodes[chosen.numpy()].sum()))
            return loss(ensemble, 0, critic, some, advantage[index], returns[index], _LOG_STD).loss

        return passes(len(taken), of)

    return call


@dataclass
class Steps:
    """What a padded rollout recorded, (T, B) for T steps and B graphs; steps after the end of a graph do not count."""

    state: Tensor
    node: Tensor
    prompt: Tensor
    node_log_prob: Tensor
    prompt_log_prob: Tensor
    reward: Tensor
    valid: Tensor


class Padded:
    """The same procedure on states that are padded to the largest graph of the data set."""

    def __init__(self, subject: Subject, policy: HybridPolicy, critic: FlattenCritic) -> None:
        self.subject, self.policy, self.critic, device = subject, policy, critic, subject.graphs.h.device
        self.counts = torch.from_numpy(subject.graphs.num_nodes).to(device)
        self.place = torch.arange(len(subject.graphs.h), device=device) - subject.graphs.ptr[subject.graphs.batch]
        self.mask = torch.arange(subject.max_nodes, device=device) < self.counts[:, None]  # (B, N_max)
        self.steps = int(subject.graphs.num_nodes.max())

    def _dense(self, rows: Tensor) -> Tensor:
        batch = self.subject.graphs.batch
        padded = rows.new_zeros(len(self.counts), self.subject.max_nodes, rows.size(1))
        return padded.index_put((batch, self.place), rows)

    def _actors(self, state: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities (B, N_max) and means (B, N_max, D), of padding too."""
        selector, prompter = self.policy.selector, self.policy.prompter
        if selector is None or prompter is None:
            raise ValueError("node_choice or prompt_choice is random; both are learned here")
        logits = selector(state).squeeze(-1).masked_fill(~mask, -torch.inf)
        return logits.log_softmax(1), prompter(state).tanh() * self.policy.max_prompt

    def values(self, state: Tensor) -> Tensor:
        """Return the value of flattened states (S, N_max, D)."""
        return self.critic.layers(state.flatten(1)).squeeze(1)

    @torch.no_grad()
    def rollout(self, actions: Sequence[tuple[Tensor, Tensor]] | None = None) -> Steps:
        """Place prompts; ``actions`` are taken instead of drawn ones, places of nodes and prompts for each step."""
        graphs, encoder = self.subject.graphs, self.subject.encoder
        every = torch.arange(len(self.counts), device=graphs.h.device)
        prompt = graphs.h.new_zeros(len(self.counts), self.subject.max_nodes, graphs.h.size(1))
        vector, rows = graphs.encode(encoder)
        before = self.subject.losses(vector)
        found: list[list[Tensor]] = []
        for step in range(self.steps):
            state = self._dense(rows)
            log_probs, means = self._actors(state, self.mask)
            valid = step < self.counts
            if actions is None:
                node = torch.multinomial(log_probs.exp(), 1).squeeze(1)
                added = means[every, node] + torch.tensor(_LOG_STD).exp() * torch.randn_like(means[:, 0])
            else:
                node, added = actions[step]
            density = self.policy.prompt_log_prob(added, means[every, node], _LOG_STD)
            prompt[every, node] += added * valid[:, None]
            vector, rows = graphs.encode(encoder, prompt[graphs.batch, self.place])
            after = self.subject.losses(vector)
            found.append([state, node, added, log_probs[every, node], density, before - after, valid])
            before = after
        return Steps(*(torch.stack(column) for column in zip(*found, strict=True)))

    def advantages(self, steps: Steps, reward: Tensor, value: Tensor) -> Tensor:
        """Return advantages (T, B), step by step from the last."""
        found, total = [], torch.zeros_like(reward[0])
        following = torch.zeros_like(reward[0])
        for step in reversed(range(self.steps)):
            last = steps.valid[step] & (step + 1 == self.counts)
            ahead = torch.where(last, 0, following)
            total = reward[step] + _DISCOUNT * ahead - value[step] + _DISCOUNT * _DECAY * torch.where(last, 0, total)
            following = value[step]
            found.append(total)
        return torch.stack(found[::-1])

    def train(self, passes: Passes) -> int:
        """Take a rollout and its update."""
        steps = self.rollout()
        where = steps.valid.nonzero(as_tuple=True)
        states, masks = steps.state[where], self.mask[where[1]]  # (S, N_max, D)
        every = torch.arange(len(states), device=states.device)
        with torch.no_grad():
            value = steps.reward.new_zeros(steps.reward.shape).index_put(where, self.values(states))
        reward = steps.reward / steps.reward[where].std(correction=0).clamp(min=1e-8)
        whole = self.advantages(steps, reward, value)
        returns, advantage = (whole + value)[where], _normalized(whole[where])
        node, prompt = steps.node[where], steps.prompt[where]
        old_node, old_prompt = steps.node_log_prob[where], steps.prompt_log_prob[where]

        def of(chosen: Tensor) -> Tensor:
            index = chosen.to(states.device)
            rows = every[: len(index)]
            log_probs, means = self._actors(states[index], masks[index])
            density = self.policy.prompt_log_prob(prompt[index], means[rows, node[index]], _LOG_STD)
            loss = states.new_zeros(())
            for new, old in ((log_probs[rows, node[index]], old_node[index]), (density, old_prompt[index])):
                ratio = (new - old).exp()
                gain = torch.minimum(ratio * advantage[index], ratio.clamp(1 - _CLIP, 1 + _CLIP) * advantage[index])
                loss = loss - gain.mean()
            entropy = -(log_probs.exp() * log_probs.masked_fill(~masks[index], 0)).sum(1).mean()
            error = functional.mse_loss(self.values(states[index]), returns[index])
            return loss - _ENTROPY * entropy + 0.5 * error

        return passes(len(states), of)


def _flat_critic(subject: Subject) -> FlattenCritic:
    return FlattenCritic(_WIDTH, subject.max_nodes, allow_large=True).to(subject.graphs.h.device)


def padded(subject: Subject) -> Call:
    """Return rollouts with updates in batches of 8 graphs, each padded."""
    policy, critic = copy.deepcopy(subject.policy), _flat_critic(subject)
    passes = Passes(subject.passes, policy, critic)
    parts = []
    for chosen in torch.randperm(len(subject.graphs), generator=torch.Generator().manual_seed(1)).split(_BATCH):
        chosen = chosen.sort().values  # from large to small, as they are
        target = subject.target[chosen.to(subject.target.device)]
        parts.append(Padded(replace(subject, graphs=subject.graphs.select(chosen), target=target), policy, critic))
    return lambda: sum(part.train(passes) for part in parts)


def same_steps(subject: Subject, calls: Mapping[str, Call] | None = None) -> Row:
    """Compare a packed rollout with a padded one of the same actions."""
    peer = Padded(subject, subject.policy, _flat_critic(subject))
    with torch.no_grad():
        rollout = roll_out_prompts(subject.policy, subject.graphs, subject.encoder, subject.losses, _LOG_STD)
        taken = rollout.transitions
        local = taken.node - taken.ptr[:-1]
        actions, start = [], 0
        for step in range(peer.steps):
            count = int((subject.graphs.num_nodes > step).sum())
            node, prompt = local.new_zeros(len(subject.graphs)), taken.prompt.new_zeros(len(subject.graphs), _WIDTH)
            node[:count], prompt[:count] = local[start : start + count], taken.prompt[start : start + count]
            actions.append((node, prompt))
            start += count
        steps = peer.rollout(actions)
        mine = peer.critic(taken.h, taken.ptr)
        value = torch.stack([peer.values(state) for state in steps.state])
        pairs = {
            "log-probabilities of nodes": (taken.node_log_prob, steps.node_log_prob),
            "log-densities of prompts": (taken.prompt_log_prob, steps.prompt_log_prob),
            "rewards": (rollout.reward, steps.reward),
            "values": (mine, value),
            "advantages": (
                rollout.advantages(rollout.reward, mine, _DISCOUNT, _DECAY),
                peer.advantages(steps, steps.reward, value),
            ),
        }
    largest = 0.0
    for name, (ours, theirs) in pairs.items():
        apart = float((ours - theirs[steps.valid]).abs().max())
        largest = max(largest, apart / (1 + float(ours.abs().max())))
        if not largest < 1e-4:
            raise OutputsDiffer(f"{name} differ by {apart}")
    return {"transitions": len(taken), "difference": largest}


def _memory(rows: Sequence[Row]) -> list[Check]:
    found = [row["peak_mb"]["packed"] for row in rows if row["data"] == "sider"]
    return [Check("(2) peak memory of packed on SIDER, MB", max(found), 4000, max(found) < 4000)] if found else []


def _cases(scale: Scale) -> list[Row]:
    cases = [{"data": "bbbp", "graphs": 8}, {"data": "bbbp", "graphs": 50}, {"data": "sider", "graphs": 8}]
    return cases[:2] if scale == "quick" else cases


speed = Speed(
    name="speed.relief_rollout",
    protocol=__doc__,
    cases=_cases,
    prepare=prepare,
    contenders={"packed": packed, "padded": padded},
    equal=same_steps,
    notes=lambda subject, seconds: {
        "transitions_per_s": {
            name: round(int(subject.graphs.num_nodes.sum()) / sorted(each)[len(each) // 2])
            for name, each in seconds.items()
        }
    },
    rounds={"quick": 2, "default": 5, "full": 15},
    seconds={"quick": 0.01, "default": 0.01, "full": 0.05},
    memory=True,
    columns=["transitions", "difference"],
    claims=[
        AtLeast("packed/padded", 5.0, {"data": "bbbp", "graphs": 50}, "(1) packed over padded, 50 molecules of BBBP"),
        _memory,
    ],
)
