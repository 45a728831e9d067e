"""Patches of images and the loss of choosing masked ones, by loops."""

import torch


def patches(image, rows, columns):
    """Patches of (C, Y, X), a grid of them row by row."""
    height, width = image.shape[1] // rows, image.shape[2] // columns
    return [
        image[:, row * height : (row + 1) * height, column * width : (column + 1) * width]
        for row in range(rows)
        for column in range(columns)
    ]


def selection_loss(images, grid, encode, pool, positions, masked, context):
    """Mean over images and masked positions of the cross-entropy of the right patch."""
    total, count = 0.0, 0
    for image, hidden, seen in zip(images, masked.tolist(), context.tolist(), strict=True):
        cut = patches(image, grid, grid)
        summary = pool(torch.stack([encode(cut[place]) + positions[place] for place in seen]))
        candidates = [encode(cut[place]) for place in hidden]
        for number, place in enumerate(hidden):
            scores = [((summary + positions[place]) * other).sum() / len(other) ** 0.5 for other in candidates]
            whole = sum(torch.exp(score) for score in scores)
            total = total - torch.log(torch.exp(scores[number]) / whole)
            count += 1
    return total / count
