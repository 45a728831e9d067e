"""Prompts by reinforcement learning, graph by graph, node by node and step by step, in float64."""

import math

import torch


def perceptron(layers, row):
    """layers: (weight, bias) of each linear map, tanh between them; row: one vector."""
    for number, (weight, bias) in enumerate(layers):
        if number:
            row = torch.tanh(row)
        row = torch.stack([(weight[i] * row).sum() + bias[i] for i in range(len(bias))])
    return row


def node_log_probs(selector, nodes):
    """nodes: vectors of one graph -> list of log-probabilities."""
    logits = [perceptron(selector, row)[0] for row in nodes]
    total = sum(torch.exp(logit) for logit in logits)
    return [logit - torch.log(total) for logit in logits]


def entropy(log_probs):
    return -sum(torch.exp(each) * each for each in log_probs)


def prompt_mean(prompter, row, max_prompt):
    return torch.stack([torch.tanh(entry) * max_prompt for entry in perceptron(prompter, row)])


def prompt_log_prob(prompt, mean, log_std):
    """Sum over entries of the logarithm of the normal density."""
    total = 0.0
    for value, middle in zip(prompt, mean, strict=True):
        total = total - 0.5 * ((value - middle) / math.exp(log_std)) ** 2 - log_std - 0.5 * math.log(2 * math.pi)
    return total


def joint_log_probs(each):
    """each[k][i]: log-probability of node i under member k -> normalised maximum."""
    highest = [max(torch.exp(member[i]) for member in each) for i in range(len(each[0]))]
    return [torch.log(value / sum(highest)) for value in highest]


def gaussian_kl(mean, other, log_std):
    return sum(0.5 * ((a - b) / math.exp(log_std)) ** 2 for a, b in zip(mean, other, strict=True))


def episode(features, edges, encode, loss, actions):
    """One graph: actions are (node, prompt); returns states before each action, rewards and the last prompts."""
    prompts = [torch.zeros_like(row) for row in features]
    states, losses = [], []
    for step in range(len(actions) + 1):
        nodes = encode([row + prompt for row, prompt in zip(features, prompts, strict=True)], edges)
        losses.append(loss(nodes))
        states.append(nodes)
        if step < len(actions):
            node, prompt = actions[step]
            prompts[node] = prompts[node] + prompt
    rewards = [losses[step] - losses[step + 1] for step in range(len(actions))]
    return states[:-1], rewards, prompts, losses


def advantages(rewards, values, discount, trace_decay):
    """By the definition: a sum over all later steps, for each step."""
    steps = len(rewards)
    found = []
    for t in range(steps):
        total = 0.0
        for later in range(t, steps):
            following = values[later + 1] if later + 1 < steps else 0.0
            delta = rewards[later] + discount * following - values[later]
            total = total + (discount * trace_decay) ** (later - t) * delta
        found.append(total)
    return found


def clipped(log_ratio, advantage, clip):
    ratio = torch.exp(log_ratio)
    limited = min(max(ratio, torch.tensor(1 - clip).double()), torch.tensor(1 + clip).double(), key=float)
    return -min(ratio * advantage, limited * advantage, key=float)


def proximal_loss(members, member, values, states, actions, old, advantage, returns, settings):
    """Loss of some transitions.

    members: (selector, prompter) of each; states: node vectors; actions: (node, prompt); old: (node, prompt)
    log-probabilities; values: of the critic.
    """
    log_std, max_prompt = settings["log_std"], settings["max_prompt"]
    total = 0.0
    count = len(states)
    for t in range(count):
        selector, prompter = members[member]
        node, prompt = actions[t]
        mine = node_log_probs(selector, states[t])
        mean = prompt_mean(prompter, states[t][node], max_prompt)
        density = prompt_log_prob(prompt, mean, log_std)
        total = total + clipped(mine[node] - old[t][0], advantage[t], settings["clip"])
        total = total + clipped(density - old[t][1], advantage[t], settings["clip"])
        total = total - settings["entropy"] * entropy(mine)
        if len(members) > 1:
            with torch.no_grad():
                joint = joint_log_probs([node_log_probs(other, states[t]) for other, _ in members])
                at = node if settings["link"] == "taken" else max(range(len(joint)), key=lambda i: float(joint[i]))
                means = [prompt_mean(other, states[t][at], max_prompt) for _, other in members]
                center = sum(means) / len(means)
            if settings["link"] == "taken":
                kl = sum(torch.exp(a) * (a - b) for a, b in zip(mine, joint, strict=True))
            else:
                kl = sum(torch.exp(b) * (b - a) for a, b in zip(mine, joint, strict=True))
            here = prompt_mean(prompter, states[t][at], max_prompt)
            total = total + settings["node_link"] * kl
            total = total + settings["prompt_link"] * gaussian_kl(here, center, log_std)
        total = total + settings["value"] * (values[t] - returns[t]) ** 2
    return total / count
