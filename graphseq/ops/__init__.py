"""Functions from tensors to tensors: segment reductions, ragged layouts, scans, kernels."""

from typing import TYPE_CHECKING

from graphseq.core.lazy import attach

if TYPE_CHECKING:
    from graphseq.ops.decorrelation import cluster_variables as cluster_variables
    from graphseq.ops.decorrelation import correlation_dissimilarity as correlation_dissimilarity
    from graphseq.ops.decorrelation import decorrelation_loss as decorrelation_loss
    from graphseq.ops.decorrelation import effective_sample_size as effective_sample_size
    from graphseq.ops.decorrelation import random_fourier_features as random_fourier_features
    from graphseq.ops.decorrelation import weighted_cross_covariance as weighted_cross_covariance
    from graphseq.ops.segment import segment_argmax as segment_argmax
    from graphseq.ops.segment import segment_max as segment_max
    from graphseq.ops.segment import segment_mean as segment_mean
    from graphseq.ops.segment import segment_min as segment_min
    from graphseq.ops.segment import segment_sum as segment_sum
    from graphseq.ops.segment_backends import segment_backend as segment_backend
    from graphseq.ops.softmax import segment_softmax as segment_softmax

_FILES: dict[str, str] = {
    "cluster_variables": "decorrelation",
    "correlation_dissimilarity": "decorrelation",
    "decorrelation_loss": "decorrelation",
    "effective_sample_size": "decorrelation",
    "random_fourier_features": "decorrelation",
    "segment_argmax": "segment",
    "segment_backend": "segment_backends",
    "segment_max": "segment",
    "segment_mean": "segment",
    "segment_min": "segment",
    "segment_softmax": "softmax",
    "segment_sum": "segment",
    "weighted_cross_covariance": "decorrelation",
}
__getattr__, __dir__, __all__ = attach(__name__, _FILES)
