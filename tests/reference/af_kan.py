"""AF-KAN and ReLU-KAN layers of one sample as loops over features and intervals, in float64."""

import torch

COMBINATIONS = {
    "sum": lambda a, b: a + b,
    "prod": lambda a, b: a * b,
    "sum_prod": lambda a, b: a + b + a * b,
    "quad1": lambda a, b: (a * b) ** 2,
    "quad2": lambda a, b: a * b + a**2 + b**2,
    "cubic1": lambda a, b: (a + b) * (a**2 + b**2),
    "cubic2": lambda a, b: (a * b) ** 3,
}


def silu(z):
    return z / (1 + torch.exp(-z))


def softmax(values):
    exps = [torch.exp(value) for value in values]
    return [value / sum(exps) for value in exps]


def scaled(features):
    """Divided by the L2 norm, then scaled to [0, 1]; features is a list over features of lists over intervals."""
    flat = [value for row in features for value in row]
    norm = torch.sqrt(sum(value**2 for value in flat))
    divided = [[value / norm for value in row] for row in features]
    flat = [value for row in divided for value in row]
    low, high = min(flat), max(flat)
    return [[(value - low) / (high - low) for value in row] for row in divided]


def reduced(features, reduction, parameters):
    inputs, intervals = len(features), len(features[0])
    if reduction == "spatial_attn":
        kernel, bias = parameters["convolution.weight"], parameters["convolution.bias"]
        out = []
        for i in range(inputs):
            scores = []
            for j in range(intervals):
                near = [features[i + s - 1][j] if 0 <= i + s - 1 < inputs else 0.0 for s in range(3)]
                scores.append(sum(kernel[j, 0, s] * near[s] for s in range(3)) + bias[j])
            weights = softmax(scores)
            out.append(sum(weights[j] * features[i][j] for j in range(intervals)))
        return out
    name = "score" if reduction == "global_attn" else "weight"
    w, c = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
    scores = [sum(w[0, j] * features[i][j] for j in range(intervals)) + c[0] for i in range(inputs)]
    if reduction == "multistep":
        return scores
    temperature = max(parameters["temperature"], torch.ones(()).double())
    weights = softmax([score / temperature for score in scores])
    return [sum(weights[i] * features[i][j] for j in range(intervals)) for i in range(inputs)]


def af_kan(x, low, high, combination, reduction, parameters, gain, shift, weight, activation=silu, scale=True):
    combine = COMBINATIONS[combination]
    features = [
        [combine(activation(x[i] - low[j]), activation(high[j] - x[i])) for j in range(len(low))] for i in range(len(x))
    ]
    h = reduced(scaled(features) if scale else features, reduction, parameters)
    mean = sum(h) / len(h)
    deviation = torch.sqrt(sum((value - mean) ** 2 for value in h) / len(h) + 1e-5)
    h = [activation((h[i] - mean) / deviation * gain[i] + shift[i]) for i in range(len(h))]
    return torch.stack([sum(weight[o, i] * h[i] for i in range(len(h))) for o in range(len(weight))])


def relu_kan_basis(x, low, high, grid, order):
    """One basis function at one point."""
    height = 4 * grid**2 / (order + 1) ** 2
    return (max(x - low, 0.0) * max(high - x, 0.0) * height) ** 2


def interval_ends(grid, order):
    lows = [(j - order) / grid for j in range(grid + order)]
    return lows, [low + (order + 1) / grid for low in lows]


def num_parameters(inputs, outputs, grid, order, reduction):
    intervals = grid + order
    own = {"global_attn": 1 + intervals + 1, "spatial_attn": 4 * intervals, "multistep": intervals + 1}[reduction]
    return inputs * outputs + 2 * inputs + 2 * intervals + own
