"""Quality of representations: accuracy of a linear probe, and the number of directions that are in use."""

import torch
from torch import Tensor

__all__ = ["effective_rank", "linear_probe"]


def linear_probe(
    train_features: Tensor, train_labels: Tensor, features: Tensor, labels: Tensor, inverse_penalty: float = 1.0
) -> float:
    r"""Return the accuracy of a logistic regression on frozen features.

    .. math:: \min_{W, b} \sum_n \mathrm{CE}(W \hat x_n + b,\, y_n) + \frac{1}{2 C} \lVert W \rVert^2

    Features are standardised by mean and deviation of the training samples, so that the penalty treats large and small
    coordinates alike; a constant feature becomes 0. It is fitted in float64 by scikit-learn (L-BFGS).

    Args:
        train_features: features of the samples that the probe is fitted to.
        train_labels: their classes.
        features: features of the samples that are classified.
        labels: their classes.
        inverse_penalty: inverse weight C of the penalty, above 0.

    Shape:
        train_features (N, D), train_labels (N,), features (M, D), labels (M,) -> share of right classes, in [0, 1]

    Raises:
        ValueError: if shapes do not fit, ``inverse_penalty`` is not above 0, or the training labels are of one class.

    Example:
        >>> x = torch.tensor([[-1.0], [-2.0], [3.0], [4.0]])
        >>> linear_probe(x, torch.tensor([5, 5, 2, 2]), torch.tensor([[-3.0], [0.9]]), torch.tensor([5, 5]))
        1.0
    """
    for name, x, y in (("train", train_features, train_labels), ("test", features, labels)):
        if x.dim() != 2 or y.shape != x.shape[:1] or x.shape[1] != train_features.shape[1]:
            raise ValueError(
                f"{name} features are {tuple(x.shape)} and labels {tuple(y.shape)}; give (N, D) and (N,), D the same "
                "in training and test"
            )
    if not inverse_penalty > 0:
        raise ValueError(f"inverse_penalty is {inverse_penalty}; it must be above 0")
    if len(train_labels.unique()) < 2:
        raise ValueError(f"all {len(train_labels)} training labels are of one class; a probe needs at least two")
    # here, since it takes a second, which not every program needs
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=1000))
    probe.fit(train_features.detach().cpu().double().numpy(), train_labels.cpu().numpy())
    return float(probe.score(features.detach().cpu().double().numpy(), labels.cpu().numpy()))


def effective_rank(features: Tensor) -> Tensor:
    r"""Return the number of directions over which the variance of features is spread, from 1 to their number.

    .. math:: \exp\Bigl(-\sum_i p_i \log p_i\Bigr), \qquad p_i = \frac{\sigma_i^2}{\sum_j \sigma_j^2}

    with :math:`\sigma_i` the singular values of the centred features. Equal variances in r directions give r; features
    without any variance give 1.

    Args:
        features: features of samples.

    Shape:
        features (N, D) -> (), float64

    Raises:
        ValueError: if ``features`` is no matrix.

    Example:
        >>> effective_rank(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
        tensor(2., dtype=torch.float64)
    """
    if features.dim() != 2:
        raise ValueError(f"features are {tuple(features.shape)}; give a matrix (N, D)")
    centred = features.detach().double()
    centred = centred - centred.mean(0)
    variances = torch.linalg.svdvals(centred).square()
    share = variances / variances.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return torch.special.entr(share).sum().exp()
