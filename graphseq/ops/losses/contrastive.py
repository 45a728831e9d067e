"""Contrastive losses over all pairs of a batch: supervised, of two views (NT-Xent), and spectral."""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["nt_xent_loss", "spectral_contrastive_loss", "supervised_contrastive_loss"]


def supervised_contrastive_loss(vectors: Tensor, labels: Tensor, temperature: float = 0.5) -> Tensor:
    r"""Return the contrastive loss whose positive pairs are all pairs of different rows with the same label.

    .. math::
        L = -\frac{1}{|A|} \sum_{i \in A} \frac{1}{|P_i|} \sum_{p \in P_i}
            \log \frac{e^{s_{ip}}}{\sum_{k \ne i} e^{s_{ik}}}, \qquad
        s_{ij} = \frac{z_i^\top z_j}{\tau \lVert z_i \rVert \lVert z_j \rVert}

    with :math:`P_i` the other rows with the label of row i, and A the rows that have any. Without such rows the loss
    is 0, and so is its gradient. Similarities are computed in float32 or wider, under autocast as well.

    Source: arXiv 2004.11362, eq. 2. Differs from it: rows without a positive pair are left out of the mean.

    Args:
        vectors: vectors z of the samples.
        labels: whole number of each row; equal ones are positive pairs.
        temperature: temperature :math:`\tau`, above 0.

    Shape:
        vectors (N, D), labels (N,) -> ()

    Raises:
        ValueError: if the temperature is not above 0, or shapes do not fit.

    Example:
        >>> z = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
        >>> supervised_contrastive_loss(z, torch.tensor([4, 4, 7]), temperature=1.0)  # log(1 + 1/e)
        tensor(0.3133)
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    if vectors.dim() != 2 or labels.shape != vectors.shape[:1]:
        raise ValueError(f"vectors is {tuple(vectors.shape)}, labels {tuple(labels.shape)}; give (N, D) and (N,)")
    with torch.autocast(vectors.device.type, enabled=False):
        z = functional.normalize(_wide(vectors), dim=1)
        similarity = z @ z.T / temperature  # (N, N)
    own = torch.eye(len(z), dtype=torch.bool, device=z.device)
    # the least finite number and not -inf: a row alone in its batch would have the logarithm of 0 / 0
    log_share = similarity.masked_fill(own, torch.finfo(similarity.dtype).min).log_softmax(1)
    positive = (labels[:, None] == labels) & ~own
    count = positive.sum(1)
    each = torch.where(positive, -log_share, 0.0).sum(1) / count.clamp(min=1)
    return each.sum() / (count > 0).sum().clamp(min=1)


def nt_xent_loss(first: Tensor, second: Tensor, temperature: float = 0.5) -> Tensor:
    r"""Return the normalised temperature-scaled cross-entropy of two views of the same samples, as in SimCLR.

    It is :func:`supervised_contrastive_loss` of the 2 B views with the sample as label: the positive of a view is the
    other view of its sample, and all other 2 B - 2 views are negatives. :func:`info_nce_loss` compares views across the
    two sets only.

    Source: arXiv 2002.05709, eq. 1.

    Args:
        first: vectors of the first views.
        second: vectors of the second views, in the same order.
        temperature: temperature of the cosine similarities, above 0.

    Shape:
        first (B, D), second (B, D) -> ()

    Raises:
        ValueError: if the temperature is not above 0, or shapes differ.

    Example:
        >>> nt_xent_loss(torch.eye(2), torch.eye(2), temperature=1.0)  # log(1 + 2/e)
        tensor(0.5514)
    """
    _check_pairs(first, second)
    samples = torch.arange(len(first), device=first.device).repeat(2)
    return supervised_contrastive_loss(torch.cat([first, second]), samples, temperature)


def spectral_contrastive_loss(first: Tensor, second: Tensor) -> Tensor:
    r"""Return the spectral contrastive loss of two views, without normalisation and without temperature.

    .. math::
        L = -\frac{2}{B} \sum_i a_i^\top b_i + \frac{1}{B (B - 1)} \sum_{i \ne j} (a_i^\top b_j)^2

    The second mean estimates that over independent samples without bias; for one sample it is 0. Without samples the
    loss is 0.

    Source: arXiv 2106.04156.

    Args:
        first: vectors a of the first views.
        second: vectors b of the second views, in the same order.

    Shape:
        first (B, D), second (B, D) -> ()

    Raises:
        ValueError: if shapes differ.

    Example:
        >>> spectral_contrastive_loss(torch.eye(3), torch.eye(3)), spectral_contrastive_loss(*torch.ones(2, 3, 1))
        (tensor(-2.), tensor(-1.))
    """
    _check_pairs(first, second)
    if not len(first):
        return _wide(first).sum()
    with torch.autocast(first.device.type, enabled=False):
        products = _wide(first) @ _wide(second).T  # (B, B)
    own = products.diagonal()
    others = products.square().sum() - own.square().sum()
    return others / max(1, len(own) * (len(own) - 1)) - 2 * own.mean()


def _check_pairs(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape or first.dim() != 2:
        raise ValueError(f"first is {tuple(first.shape)}, second {tuple(second.shape)}; both must be (B, D)")


def _wide(vectors: Tensor) -> Tensor:
    return vectors.to(torch.promote_types(vectors.dtype, torch.float32))
