"""Policies, their ensemble and the loss against loops over graphs and nodes, gradients too."""

import copy
import math

import pytest
import torch
from torch.distributions import Categorical, Normal, kl_divergence

from graphseq.nn import HybridPolicy, PolicyEnsemble, PoolCritic, ProximalPolicyLoss
from graphseq.nn.prompt.rollouts import Transitions
from tests.reference import relief

WIDTH, PROMPT, LOG_STD = 6, 3, -0.7
PTR = torch.tensor([0, 4, 5, 8])


def policy(**options):
    made = HybridPolicy(WIDTH, PROMPT, 0.3, **options).double()
    for parameter in made.parameters():  # the small last layers would hide errors
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def layers(network):
    return [(layer.weight, layer.bias) for layer in network if isinstance(layer, torch.nn.Linear)]


def states():
    return torch.randn(8, WIDTH, dtype=torch.float64)


def split(h):
    return [list(part) for part in h.tensor_split(PTR[1:-1])]


def taken(member, h):
    with torch.no_grad():
        action = member.act(h, PTR, LOG_STD)
    node = action.node - PTR[:-1]
    return Transitions(h, PTR, action.node, action.prompt, action.node_log_prob, action.prompt_log_prob), node


def test_probabilities_equal_the_reference():
    member, h = policy(), states()
    transitions, node = taken(member, h)
    found = member.evaluate(h, PTR, transitions.node, transitions.prompt, LOG_STD)
    assert torch.equal(found.node_log_prob.detach(), transitions.node_log_prob)
    assert torch.equal(found.prompt_log_prob.detach(), transitions.prompt_log_prob)
    for number, rows in enumerate(split(h)):
        expected = torch.stack(relief.node_log_probs(layers(member.selector), rows))
        torch.testing.assert_close(found.log_probs[PTR[number] : PTR[number + 1]], expected)
        torch.testing.assert_close(found.entropy[number], relief.entropy(list(expected)))
        mean = relief.prompt_mean(layers(member.prompter), rows[node[number]], 0.3)
        torch.testing.assert_close(found.mean[number], mean)
        density = relief.prompt_log_prob(transitions.prompt[number], mean, LOG_STD)
        torch.testing.assert_close(found.prompt_log_prob[number], density)
        normal = Normal(mean, torch.tensor(LOG_STD).double().exp())
        torch.testing.assert_close(density, normal.log_prob(transitions.prompt[number]).sum())
        torch.testing.assert_close(found.entropy[number], Categorical(logits=expected).entropy())


def test_probabilities_sum_to_one_and_follow_a_permutation_of_the_nodes():
    member, critic, h = policy(), PoolCritic(WIDTH).double(), states()
    found = member.node_log_probs(h, PTR)
    torch.testing.assert_close(
        torch.stack([part.exp().sum() for part in found.tensor_split(PTR[1:-1])]), torch.ones(3).double()
    )
    order = torch.cat([PTR[g] + torch.randperm(int(PTR[g + 1] - PTR[g])) for g in range(3)])
    torch.testing.assert_close(member.node_log_probs(h[order], PTR), found[order])
    torch.testing.assert_close(critic(h[order], PTR), critic(h, PTR))


def test_a_single_node_is_certain():
    member = policy()
    action = member.act(torch.randn(1, WIDTH).double(), torch.tensor([0, 1]), LOG_STD)
    assert action.node.tolist() == [0]
    assert action.node_log_prob.tolist() == [0]


def test_densities_are_wide_under_autocast():
    """In half precision a sum over all entries is rounded to whole numbers, and the exponential of a difference is any.

    Probabilities that are computed a second time are those of the draw: the ratio is 1.
    """
    torch.manual_seed(0)
    member, h = HybridPolicy(16, 300), torch.randn(8, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        action = member.act(h, PTR, -4.0)
        found = member.evaluate(h, PTR, action.node, action.prompt, -4.0)
    assert found.log_probs.dtype == action.prompt.dtype == torch.float32
    exact = Normal(found.mean.double(), math.exp(-4)).log_prob(action.prompt.double()).sum(1)
    torch.testing.assert_close(found.prompt_log_prob.double(), exact, rtol=1e-5, atol=0)
    torch.testing.assert_close(found.prompt_log_prob, action.prompt_log_prob)


def test_samples_have_the_deviation_that_was_asked_for_and_may_be_limited():
    member, h = policy(), torch.zeros(4000, WIDTH).double()
    action = member.act(h, torch.arange(4001), -0.5)
    noise = (action.prompt - member.prompt_mean(h)).detach()
    assert float(noise.std()) == pytest.approx(2.718281828**-0.5, rel=0.03)
    assert float(action.prompt.abs().max()) > 1
    limited = policy(clamp=True)
    action = limited.act(h, torch.arange(4001), -0.5)
    assert float(action.prompt.abs().max()) == 0.3
    density = limited.prompt_log_prob(action.prompt, limited.prompt_mean(h), -0.5)
    assert torch.equal(density, action.prompt_log_prob)  # of the limited value


def test_random_choices_have_no_parameters_and_no_preference():
    both = HybridPolicy(WIDTH, PROMPT, 0.3, node_choice="random", prompt_choice="random")
    assert not list(both.parameters())
    action = both.act(torch.randn(3000, WIDTH), torch.tensor([0, 1000, 3000]), 0.0)
    torch.testing.assert_close(action.node_log_prob, -torch.tensor([1000.0, 2000.0]).log())
    assert action.prompt_log_prob.tolist() == [0, 0]
    prompt, _ = both.sample_prompt(torch.zeros(5000, PROMPT), 0.0)
    assert float(prompt.abs().max()) <= 0.3
    assert float(prompt.std()) == pytest.approx(0.3 / 3**0.5, rel=0.03)


def test_joint_policy_is_the_normalised_maximum_and_the_mean_of_means():
    ensemble, h = PolicyEnsemble([policy() for _ in range(3)]), states()
    found = ensemble.joint_log_probs(h, PTR)
    for number, rows in enumerate(split(h)):
        each = [relief.node_log_probs(layers(member.selector), rows) for member in ensemble.members]
        expected = torch.stack(relief.joint_log_probs(each))
        torch.testing.assert_close(found[PTR[number] : PTR[number + 1]], expected)
    means = [relief.prompt_mean(layers(member.prompter), h[2], 0.3) for member in ensemble.members]
    torch.testing.assert_close(ensemble.joint_mean(h[2:3])[0], sum(means) / 3)
    node, prompt = ensemble.act(h, PTR, most_likely=True)
    assert node.tolist() == [int(PTR[g]) + int(found[PTR[g] : PTR[g + 1]].argmax()) for g in range(3)]
    torch.testing.assert_close(prompt, ensemble.joint_mean(h[node]))


@pytest.mark.parametrize("link", ["taken", "released"])
def test_equal_members_have_no_penalty_and_are_the_joint_policy(link):
    one = policy()
    ensemble, h = PolicyEnsemble([one, copy.deepcopy(one), copy.deepcopy(one)]), states()
    torch.testing.assert_close(ensemble.joint_log_probs(h, PTR), one.node_log_probs(h, PTR))
    transitions, _ = taken(one, h)
    found = one.evaluate(h, PTR, transitions.node, transitions.prompt, LOG_STD)
    for penalty in ensemble.link_penalty(0, found, h, PTR, transitions.node, LOG_STD, link):
        torch.testing.assert_close(penalty, torch.zeros(3).double())


@pytest.mark.parametrize("link", ["taken", "released"])
def test_penalties_are_the_divergences_of_torch(link):
    ensemble, h = PolicyEnsemble([policy(), policy()]), states()
    transitions, node = taken(ensemble[1], h)
    found = ensemble[1].evaluate(h, PTR, transitions.node, transitions.prompt, LOG_STD)
    node_kl, prompt_kl = ensemble.link_penalty(1, found, h, PTR, transitions.node, LOG_STD, link)
    assert bool((node_kl >= 0).all() and (prompt_kl >= 0).all())
    joint = ensemble.joint_log_probs(h, PTR)
    for g in range(3):
        here = slice(int(PTR[g]), int(PTR[g + 1]))
        mine, theirs = Categorical(logits=found.log_probs[here]), Categorical(logits=joint[here])
        pair = (mine, theirs) if link == "taken" else (theirs, mine)
        torch.testing.assert_close(node_kl[g], kl_divergence(*pair))
        at = here.start + int(node[g] if link == "taken" else joint[here].argmax())
        scale = torch.tensor(LOG_STD).double().exp()
        mean, center = ensemble[1].prompt_mean(h[at][None])[0], ensemble.joint_mean(h[at][None])[0]
        torch.testing.assert_close(prompt_kl[g], kl_divergence(Normal(mean, scale), Normal(center, scale)).sum())


@pytest.mark.parametrize("link", ["taken", "released"])
@pytest.mark.parametrize("number", [1, 3])
def test_loss_equals_the_reference_with_gradients(number, link):
    """After the policy has moved, with every term, and with a ratio outside the clip."""
    settings = {"log_std": LOG_STD, "max_prompt": 0.3, "clip": 0.2, "entropy": 0.05, "value": 0.5}
    settings |= {"node_link": 0.7, "prompt_link": 0.2, "link": link}
    ensemble, critic = PolicyEnsemble([policy() for _ in range(number)]), PoolCritic(WIDTH).double()
    h, member = states(), number - 1
    transitions, node = taken(ensemble[member], h)
    with torch.no_grad():
        for parameter in ensemble[member].parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    advantage, returns = torch.randn(2, 3, dtype=torch.float64)
    loss = ProximalPolicyLoss(entropy_weight=0.1, node_link=0.7, prompt_link=0.2, link=link)
    found = loss(ensemble, member, critic, transitions, advantage, returns, LOG_STD, entropy_share=0.5)
    expected = relief.proximal_loss(
        [(layers(each.selector), layers(each.prompter)) for each in ensemble.members],
        member,
        critic(h, PTR),
        split(h),
        list(zip(node.tolist(), transitions.prompt, strict=True)),
        list(zip(transitions.node_log_prob, transitions.prompt_log_prob, strict=True)),
        advantage,
        returns,
        settings,
    )
    torch.testing.assert_close(found.loss, expected)
    parameters = [*ensemble[member].parameters(), *critic.parameters()]
    ours, theirs = (torch.autograd.grad(each, parameters, retain_graph=True) for each in (found.loss, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    others = [parameter for k in range(number) if k != member for parameter in ensemble[k].parameters()]
    reached = torch.autograd.grad(found.loss, others, allow_unused=True) if others else []
    assert all(gradient is None for gradient in reached), "only the member is trained"


class Critic(torch.nn.Module):
    """A critic whose values are a column, which would be broadcast against the returns."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, h, ptr):
        return self.layer(h[ptr[:-1]])


def test_refuses():
    with pytest.raises(ValueError, match="max_prompt 0"):
        HybridPolicy(4, 2, 0)
    with pytest.raises(ValueError, match="node_choice is 'best'"):
        HybridPolicy(4, 2, node_choice="best")
    with pytest.raises(ValueError, match="members is empty"):
        PolicyEnsemble([])
    for name in ("node_clip", "prompt_clip"):
        with pytest.raises(ValueError, match=f"{name} is 0"):
            ProximalPolicyLoss(**{name: 0})
    with pytest.raises(ValueError, match="node_link is -1"):
        ProximalPolicyLoss(node_link=-1)
    with pytest.raises(ValueError, match="link is 'leep'"):
        ProximalPolicyLoss(link="leep")
    ensemble, h = PolicyEnsemble([policy()]), states()
    column = torch.nn.Linear(WIDTH, 1).double()
    with pytest.raises(ValueError, match=r"Critic, gives values \(3, 1\)"):
        ProximalPolicyLoss()(ensemble, 0, Critic(column), taken(ensemble[0], h)[0], *torch.ones(2, 3), LOG_STD)


def test_state_and_copies():
    ensemble = PolicyEnsemble([HybridPolicy(4, 2), HybridPolicy(4, 2)])
    other = copy.deepcopy(ensemble)
    other.load_state_dict(PolicyEnsemble([HybridPolicy(4, 2), HybridPolicy(4, 2)]).state_dict())
    h, ptr = torch.randn(5, 4), torch.tensor([0, 5])
    assert not torch.equal(other.joint_log_probs(h, ptr), ensemble.joint_log_probs(h, ptr))
    other.load_state_dict(ensemble.state_dict())
    assert torch.equal(other.joint_log_probs(h, ptr), ensemble.joint_log_probs(h, ptr))
