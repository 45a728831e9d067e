"""Contrastive losses over all pairs, by loops."""

import torch


def cosine(a, b, temperature):
    return (a * b).sum() / (a.norm() * b.norm() * temperature)


def supervised_contrastive_loss(vectors, labels, temperature):
    count, anchors, total = len(vectors), 0, 0.0
    for i in range(count):
        positives = [p for p in range(count) if p != i and int(labels[p]) == int(labels[i])]
        if not positives:
            continue
        anchors += 1
        whole = sum(torch.exp(cosine(vectors[i], vectors[k], temperature)) for k in range(count) if k != i)
        for p in positives:
            share = torch.exp(cosine(vectors[i], vectors[p], temperature)) / whole
            total = total - torch.log(share) / len(positives)
    return total / anchors


def nt_xent_loss(first, second, temperature):
    views, total = [*first, *second], 0.0
    count = len(first)
    for i in range(2 * count):
        partner = (i + count) % (2 * count)
        others = [torch.exp(cosine(views[i], views[k], temperature)) for k in range(2 * count) if k != i]
        total = total - torch.log(torch.exp(cosine(views[i], views[partner], temperature)) / sum(others))
    return total / (2 * count)


def spectral_contrastive_loss(first, second):
    count = len(first)
    attraction = sum((first[i] * second[i]).sum() for i in range(count)) / count
    apart = [(first[i] * second[j]).sum() ** 2 for i in range(count) for j in range(count) if i != j]
    return -2 * attraction + sum(apart) / len(apart)
