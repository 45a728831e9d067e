"""Learned weights, queues of batches and losses over environments, in plain loops and float64."""

import math


def weights(logits, ess_min):
    """Mean-one weights; mixed with 1 by bisection until the effective sample size is no less than the bound."""
    top = max(logits)
    exponentials = [math.exp(a - top) for a in logits]
    raw = [len(logits) * e / sum(exponentials) for e in exponentials]

    def mixed(t):
        return [(1 - t) * w + t for w in raw]

    if effective(raw) >= ess_min:
        return raw
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if effective(mixed(middle)) >= ess_min:
            high = middle
        else:
            low = middle
    return mixed(high)


def effective(values):
    return sum(values) ** 2 / (len(values) * sum(w * w for w in values))


def fifo(batches, num_blocks):
    """batches[b][n] is a row -> the rows kept."""
    kept = []
    for batch in batches:
        for row in batch:
            kept.append(row)
            if len(kept) > num_blocks * len(batches[0]):
                kept.pop(0)
    return kept


def ema(batches, num_blocks, momentum):
    """batches[b][n][d] -> blocks one after the other."""
    blocks = [[list(row) for row in batches[0]] for _ in range(num_blocks)]
    for batch in batches[1:]:
        for k, block in enumerate(blocks):
            alpha = momentum ** (1 / (k + 1))
            for n, row in enumerate(batch[: len(block)]):
                block[n] = [alpha * old + (1 - alpha) * new for old, new in zip(block[n], row, strict=True)]
    return [row for block in blocks for row in block]


def _log_softmax(row):
    top = max(row)
    total = math.log(sum(math.exp(v - top) for v in row))
    return [v - top - total for v in row]


def risk(logits, labels, members, scale=1.0):
    return -sum(_log_softmax([scale * v for v in logits[n]])[labels[n]] for n in members) / len(members)


def _members(env):
    return [[n for n, e in enumerate(env) if e == number] for number in sorted(set(env))]


def mean_risk(logits, labels, env):
    groups = _members(env)
    return sum(risk(logits, labels, group) for group in groups) / len(groups)


def invariant_risk(logits, labels, env, scale):
    groups, penalty = _members(env), 0.0
    for group in groups:
        slope = 0.0
        for n in group:  # d/dv of -log softmax(v f)_y at v = 1 is the expected output minus that of the label
            probability = [math.exp(v) for v in _log_softmax(logits[n])]
            expected = sum(p * v for p, v in zip(probability, logits[n], strict=True))
            slope += (expected - logits[n][labels[n]]) / len(group)
        penalty += slope * slope / len(groups)
    return mean_risk(logits, labels, env) + scale * penalty


def variance_risk(logits, labels, env, scale):
    risks = [risk(logits, labels, group) for group in _members(env)]
    mean = sum(risks) / len(risks)
    return mean + scale * sum((r - mean) ** 2 for r in risks) / len(risks)


def group_dro(logits, labels, env, share, step_size):
    """Returns the loss at the new shares, and these."""
    risks = {env[group[0]]: risk(logits, labels, group) for group in _members(env)}
    grown = [q * math.exp(step_size * risks.get(e, 0.0)) for e, q in enumerate(share)]
    share = [q / sum(grown) for q in grown]
    return sum(share[e] * r for e, r in risks.items()), share


def coral(z, env):
    """Mean over pairs of environments with two samples or more."""
    width = len(z[0])
    covariances = []
    for group in (g for g in _members(env) if len(g) > 1):
        mean = [sum(z[n][d] for n in group) / len(group) for d in range(width)]
        covariances.append(
            [
                [sum((z[n][i] - mean[i]) * (z[n][j] - mean[j]) for n in group) / (len(group) - 1) for j in range(width)]
                for i in range(width)
            ]
        )
    total, pairs = 0.0, 0
    for a in range(len(covariances)):
        for b in range(a):
            pairs += 1
            for i in range(width):
                for j in range(width):
                    total += (covariances[a][i][j] - covariances[b][i][j]) ** 2 / (4 * width * width)
    return total / pairs if pairs else 0.0


def slope(function, matrix, step=1e-5):
    """Central differences of a function of a matrix."""
    result = [[0.0] * len(row) for row in matrix]
    for i, row in enumerate(matrix):
        for j in range(len(row)):
            ends = []
            for sign in (1, -1):
                moved = [list(r) for r in matrix]
                moved[i][j] += sign * step
                ends.append(function(moved))
            result[i][j] = (ends[0] - ends[1]) / (2 * step)
    return result
