"""Classifiers that infinitely wide and deep networks become, as estimators of scikit-learn."""

import math
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d
from torch import Tensor, nn

from graphseq.analysis.infinite.duals import infinite_depth_regime
from graphseq.analysis.infinite.kernels import LogKernel, nngp_kernel, ntk_kernel

__all__ = ["HilbertEstimate", "InfiniteNetworkClassifier"]

BLOCK_ENTRIES = 2**21
"""Entries of a kernel between new and training inputs that are held at once: 16 MB in float64."""


class _OnTrainingInputs(ClassifierMixin, BaseEstimator):
    """Base class: checks and encodes the training set, and predicts new inputs in blocks."""

    def _read(self, X: ArrayLike, y: ArrayLike) -> tuple[Tensor, Tensor]:
        """Return the inputs, float64 (N, D), and their classes as -1 and 1 for two classes (N, 1), else one-hot (N, K).

        Args:
            X: inputs.
            y: classes.
        """
        inputs = _inputs(X)
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        labels = column_or_1d(_array(y), warn=True)
        check_classification_targets(labels)
        if labels.shape != (len(inputs),):
            raise ValueError(f"y is of shape {labels.shape} for {len(inputs)} inputs; give one class for each")
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"all {len(labels)} inputs are of class {self.classes_[0]}: y has 1 class, and at least two are needed"
            )
        self.n_features_in_ = inputs.shape[1]
        one_hot = nn.functional.one_hot(torch.from_numpy(codes), len(self.classes_)).double()
        return inputs, 2 * one_hot[:, 1:] - 1 if len(self.classes_) == 2 else one_hot

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the scores of new inputs, (M,) for two classes, else (M, K).

        They are known up to a positive factor for each input, which no decision depends on.

        Args:
            X: inputs (M, D).
        """
        check_is_fitted(self, "_train")
        inputs = _inputs(X)
        if inputs.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {inputs.shape[1]} features, but {type(self).__name__} is expecting {self.n_features_in_} "
                "features as input: those it was fitted with"
            )
        rows = max(1, BLOCK_ENTRIES // len(self._train))
        scores = torch.cat([self._scores(block) for block in inputs.split(rows)]).numpy()
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: ArrayLike) -> NDArray[np.generic]:
        """Return the classes of new inputs.

        Args:
            X: inputs (M, D).
        """
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return self.classes_[(scores > 0).astype(int)]
        return self.classes_[scores.argmax(1)]

    _train: Tensor

    def _scores(self, inputs: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define scores")


class HilbertEstimate(_OnTrainingInputs):
    r"""Classifier by a sum over all training inputs, weighted by a power of their distance.

    .. math:: \hat y(x) = \operatorname{sign} \sum_i y_i\, \lVert x - x_i \rVert^{-\alpha}

    It interpolates the training data, and is consistent if :math:`\alpha` is the dimension of the data. An input that
    equals a training input gets its class.

    Source: Devroye, Györfi and Krzyżak, The Hilbert kernel regression estimate, 1998.

    Args:
        exponent: :math:`\alpha`, above 0.

    Raises:
        ValueError: in ``fit`` if ``exponent`` is not above 0, an input is not finite, or there is a single class.

    Example:
        >>> HilbertEstimate(1.0).fit([[0.0], [1.0], [1.2]], [0, 1, 1]).predict([[0.1], [0.9]]).tolist()
        [0, 1]
    """

    def __init__(self, exponent: float = 1.0) -> None:
        self.exponent = exponent

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Keep the training inputs and their classes.

        Args:
            X: inputs (N, D).
            y: classes (N,).
        """
        if not 0.0 < self.exponent < math.inf:
            raise ValueError(f"exponent is {self.exponent}; give a number above 0")
        self._train, self._targets = self._read(X, y)
        return self

    def _scores(self, inputs: Tensor) -> Tensor:
        distance = torch.cdist(inputs, self._train, compute_mode="donot_use_mm_for_euclid_dist")
        log = -self.exponent * distance.log()
        same = distance == 0
        log = torch.where(same.any(1, keepdim=True), torch.where(same, 0.0, -math.inf), log)
        return (log - log.amax(1, keepdim=True)).exp() @ self._targets


class InfiniteNetworkClassifier(_OnTrainingInputs):
    r"""Classifier of an infinitely wide network that is trained on all its layers, or on the last one.

    .. math:: \hat y(x) = \operatorname{sign}\, K(x, X)\, K(X, X)^{-1} y

    with the neural tangent kernel, or the covariance kernel (NNGP), of ``depth`` hidden layers. Inputs are divided by
    their norms. The kernel is computed in logarithms, so that it does not underflow at a depth of :math:`10^5`; for
    more than two classes there is one column of targets for each. Fitting takes 40 bytes for each pair of training
    inputs.

    Source: arXiv 2204.14126. Differs from it: classes beyond two.

    Args:
        activation: activation of the hidden layers; see :func:`~graphseq.analysis.dual_activation`.
        depth: number of hidden layers, at least 0.
        kernel: ``"nngp"``, which is near its limit from a depth of about 50, or ``"ntk"``, which needs about
            :math:`10^4`.

    Raises:
        ValueError: in ``fit`` if two inputs are equal up to their norms or the kernel is singular in another way, an
            input is 0 or not finite, or there is a single class.

    Example:
        >>> from graphseq.nn import optimal_activation
        >>> classifier = InfiniteNetworkClassifier(optimal_activation(1), depth=50)
        >>> classifier.fit([[1.0, 0.1], [0.1, 1.0], [0.3, 1.0]], ["a", "b", "b"]).predict([[1.0, 0.2]]).tolist()
        ['a']
        >>> print(classifier.regime_)
        singular kernel with weights of distance to the power of -1, consistent if the data have that dimension
    """

    def __init__(self, activation: nn.Module, depth: int = 50, kernel: Literal["nngp", "ntk"] = "nngp") -> None:
        self.activation = activation
        self.depth = depth
        self.kernel = kernel

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Solve for the coefficients of the training inputs.

        Args:
            X: inputs (N, D).
            y: classes (N,).
        """
        if self.kernel not in ("nngp", "ntk"):
            raise ValueError(f"kernel is {self.kernel!r}; give 'nngp' or 'ntk'")
        inputs, targets = self._read(X, y)
        self.regime_ = infinite_depth_regime(self.activation)
        self._train = _on_sphere(inputs)
        found = self._kernel(self._train, None)
        equal = (found.log >= found.log_diagonal).triu(1).nonzero()
        if len(equal):
            first, second = equal[0].tolist()
            raise ValueError(
                f"rows {first} and {second} of X are the same input up to its norm, with {len(equal)} such pairs in "
                "all: the kernel is singular. Keep one of each"
            )
        matrix = found.values(found.log_diagonal)
        factor, failed = torch.linalg.cholesky_ex(matrix.fill_diagonal_(1.0))
        if int(failed) or float(factor.diagonal().min()) ** 2 < 1e-12:
            raise ValueError(
                f"the kernel of depth {self.depth} is singular to double precision, with the regime '{self.regime_}': "
                "the inputs are too much alike for this depth and activation"
            )
        self._coefficients = torch.cholesky_solve(targets, factor)
        return self

    def _kernel(self, x: Tensor, y: Tensor | None) -> LogKernel:
        return (nngp_kernel if self.kernel == "nngp" else ntk_kernel)(x, self.activation, self.depth, y)

    def _scores(self, inputs: Tensor) -> Tensor:
        found = self._kernel(_on_sphere(inputs), self._train)
        largest = found.log.amax(1, keepdim=True)
        return (found.sign * (found.log - largest).exp()) @ self._coefficients


def _inputs(X: ArrayLike) -> Tensor:
    if issparse(X):
        raise TypeError("X is a sparse matrix, and sparse input is not supported; give X.toarray()")
    given = _array(X)
    if np.iscomplexobj(given):
        raise ValueError(
            "Complex data not supported: X holds complex numbers; give real and imaginary parts as features"
        )
    inputs = torch.from_numpy(np.array(given, dtype=np.float64))
    if inputs.dim() == 1:
        raise ValueError(f"X is of shape {tuple(inputs.shape)}. Reshape your data: give inputs (N, D), one row each")
    if inputs.dim() != 2 or not len(inputs):
        raise ValueError(f"X is of shape {tuple(inputs.shape)}; give at least one input, (N, D)")
    if not inputs.shape[1]:
        raise ValueError(f"X has 0 feature(s) (shape={tuple(inputs.shape)}) while a minimum of 1 is required")
    if not bool(inputs.isfinite().all()):
        row = int((~inputs.isfinite()).any(1).nonzero()[0])
        raise ValueError(f"row {row} of X has a value that is not finite, NaN or inf: {inputs[row].tolist()}")
    return inputs


def _array(values: ArrayLike | Tensor) -> NDArray[np.generic]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _on_sphere(inputs: Tensor) -> Tensor:
    norms = inputs.norm(dim=1, keepdim=True)
    if not bool((norms > 0).all()):
        row = int((norms[:, 0] == 0).nonzero()[0])
        raise ValueError(f"row {row} of X is 0, which has no direction; leave it out, or add a constant feature")
    return inputs / norms
