"""A multilayer perceptron and a small convolutional network on nested lists, number by number, and their slopes."""

import math
from collections.abc import Callable

Vector = list[float]
Matrix = list[Vector]
EPS = 1e-5  # of the norms


def linear(x: Vector, weight: Matrix, bias: Vector | None) -> Vector:
    result = []
    for o, row in enumerate(weight):
        total = bias[o] if bias is not None else 0.0
        for w, value in zip(row, x, strict=True):
            total += w * value
        result.append(total)
    return result


def relu(x: Vector) -> Vector:
    return [value if value > 0 else 0.0 for value in x]


def moments(values: Vector) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, sum((value - mean) ** 2 for value in values) / len(values)


def standardized(values: Vector, gain: Vector, shift: Vector) -> Vector:
    mean, variance = moments(values)
    return [(v - mean) / math.sqrt(variance + EPS) * g + s for v, g, s in zip(values, gain, shift, strict=True)]


def mlp(batch: Matrix, layers: list[dict], head: dict, norm: str) -> Matrix:
    """Outputs of a batch; a layer holds ``weight``, ``bias`` (or None) and, with a norm, ``gain`` and ``shift``."""
    for layer in layers:
        batch = [linear(x, layer["weight"], layer["bias"]) for x in batch]
        if norm == "layer":
            batch = [standardized(x, layer["gain"], layer["shift"]) for x in batch]
        if norm == "batch":
            columns = []
            for unit in range(len(batch[0])):
                size = len(batch)
                columns.append(
                    standardized([x[unit] for x in batch], [layer["gain"][unit]] * size, [layer["shift"][unit]] * size)
                )
            batch = [[column[b] for column in columns] for b in range(len(batch))]
        batch = [relu(x) for x in batch]
    return [linear(x, head["weight"], head["bias"]) for x in batch]


def convolution(image: list[Matrix], weight: list[list[Matrix]]) -> list[Matrix]:
    """A 3 x 3 convolution of one image (C, Y, X), zeros outside."""
    height, width = len(image[0]), len(image[0][0])
    result = []
    for kernels in weight:
        plane = []
        for y in range(height):
            row = []
            for x in range(width):
                total = 0.0
                for channel, kernel in zip(image, kernels, strict=True):
                    for dy in range(3):
                        for dx in range(3):
                            if 0 <= y + dy - 1 < height and 0 <= x + dx - 1 < width:
                                total += kernel[dy][dx] * channel[y + dy - 1][x + dx - 1]
                row.append(total)
            plane.append(row)
        result.append(plane)
    return result


def convnet(batch: list[list[Matrix]], blocks: list[dict], head: dict) -> Matrix:
    """Outputs of a batch of images: blocks of convolution, batch norm, ReLU, pooling; mean over positions; head."""
    for block in blocks:
        batch = [convolution(image, block["weight"]) for image in batch]
        for c in range(len(batch[0])):
            mean, variance = moments([pixel for image in batch for row in image[c] for pixel in row])
            for image in batch:
                image[c] = [
                    relu([(p - mean) / math.sqrt(variance + EPS) * block["gain"][c] + block["shift"][c] for p in row])
                    for row in image[c]
                ]
        batch = [
            [
                [
                    [max(plane[y][x], plane[y][x + 1], plane[y + 1][x], plane[y + 1][x + 1]) for x in columns]
                    for y in range(0, len(plane) - 1, 2)
                ]
                for plane in image
                for columns in [range(0, len(plane[0]) - 1, 2)]
            ]
            for image in batch
        ]
    features = [[moments([p for row in plane for p in row])[0] for plane in image] for image in batch]
    return [linear(x, head["weight"], head["bias"]) for x in features]


def slope(function: Callable[[], float], values: Vector, index: int, step: float = 1e-6) -> float:
    """The central difference of a function in one entry of a list that it reads."""
    kept = values[index]
    values[index] = kept + step
    above = function()
    values[index] = kept - step
    below = function()
    values[index] = kept
    return (above - below) / (2 * step)
