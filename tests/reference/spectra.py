"""Layers, losses and scores on complex numbers, entry by entry in float64."""

import itertools
import math

import numpy as np


def convolution(x, weight, stride, padding):
    """(A + iB) * (x + iy) = (A*x - B*y) + i (A*y + B*x), of channels by rows and columns."""
    outputs, inputs, height, width = weight.shape
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    shape = [(size - kernel) // stride + 1 for size, kernel in zip(x.shape[1:], (height, width), strict=True)]
    real, imaginary = np.zeros((outputs, *shape)), np.zeros((outputs, *shape))
    for o, row, column in itertools.product(range(outputs), *map(range, shape)):
        for i, r, c in itertools.product(range(inputs), range(height), range(width)):
            w, z = weight[o, i, r, c], x[i, row * stride + r, column * stride + c]
            real[o, row, column] += w.real * z.real - w.imag * z.imag
            imaginary[o, row, column] += w.real * z.imag + w.imag * z.real
    return real + 1j * imaginary


def batch_norm(x, eps, gamma, beta):
    """Whitening of each channel (B, C, T) by the eigenvectors of its covariance."""
    y = np.empty_like(x)
    for channel in range(x.shape[1]):
        z = x[:, channel].ravel()
        parts = np.stack([z.real, z.imag])
        parts = parts - parts.mean(1, keepdims=True)
        values, vectors = np.linalg.eigh(parts @ parts.T / len(z) + eps * np.eye(2))
        rr, ii, ri = gamma[:, channel]
        mixed = np.array([[rr, ri], [ri, ii]]) @ vectors @ np.diag(values**-0.5) @ vectors.T @ parts
        y[:, channel] = (mixed[0] + 1j * mixed[1] + beta[channel]).reshape(x[:, channel].shape)
    return y


def focal_loss(logit, target, alpha, gamma):
    p = 1 / (1 + math.exp(-logit))
    right = p if target else 1 - p
    return -alpha * (1 - right) ** gamma * math.log(right)


def iou(logits, mask, decision):
    """Intersection over union of one sample, of sets of places."""
    says = {"or": lambda z: z.real > 0 or z.imag > 0, "and": lambda z: z.real > 0 and z.imag > 0,
            "real": lambda z: z.real > 0}[decision]  # fmt: skip
    predicted = {place for place, z in enumerate(logits) if says(z)}
    true = {place for place, m in enumerate(mask) if m}
    union = predicted | true
    return len(predicted & true) / len(union) if union else 1.0
