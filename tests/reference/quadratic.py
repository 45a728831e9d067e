"""Quadratic neurons as loops over outputs and inputs, in float64; weights are (weight, bias or None) of each map."""

import torch


def neuron(terms, r, g, b):
    """One neuron; terms are triples of an input and its places in the weights of the maps."""
    totals = []
    for (weight, bias), power in ((r, 1), (g, 1), (b, 2)):
        total = torch.zeros((), dtype=torch.float64) if bias is None else bias
        for value, place in terms:
            total = total + weight[place] * value**power
        totals.append(total)
    return totals[0] * totals[1] + totals[2]


def _at(maps, output):
    return [(weight[output], None if bias is None else bias[output]) for weight, bias in maps]


def linear(x, *maps):
    """Outputs (B, K) of inputs (B, D)."""
    rows = []
    for sample in x:
        terms = [(value, i) for i, value in enumerate(sample)]
        rows.append(torch.stack([neuron(terms, *_at(maps, output)) for output in range(len(maps[0][0]))]))
    return torch.stack(rows)


def convolution(x, *maps, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    """Outputs (B, K, Y', X') of images (B, C, Y, X)."""
    outputs, per_group, rows, columns = maps[0][0].shape
    _, _, height, width = x.shape
    out_height = (height + 2 * padding[0] - dilation[0] * (rows - 1) - 1) // stride[0] + 1
    out_width = (width + 2 * padding[1] - dilation[1] * (columns - 1) - 1) // stride[1] + 1
    images = []
    for image in x:
        values = []
        for output in range(outputs):
            first = output // (outputs // groups) * per_group
            for top in range(out_height):
                for left in range(out_width):
                    terms = []
                    for channel in range(per_group):
                        for i in range(rows):
                            for j in range(columns):
                                y = top * stride[0] - padding[0] + i * dilation[0]
                                z = left * stride[1] - padding[1] + j * dilation[1]
                                if 0 <= y < height and 0 <= z < width:
                                    terms.append((image[first + channel, y, z], (channel, i, j)))
                    values.append(neuron(terms, *_at(maps, output)))
        images.append(torch.stack(values).view(outputs, out_height, out_width))
    return torch.stack(images)
