"""Functions from tensors to tensors: segment reductions, ragged layouts, scans, kernels."""

from typing import TYPE_CHECKING

from graphseq.core.lazy import attach

if TYPE_CHECKING:
    from graphseq.ops.segment import segment_argmax as segment_argmax
    from graphseq.ops.segment import segment_max as segment_max
    from graphseq.ops.segment import segment_mean as segment_mean
    from graphseq.ops.segment import segment_min as segment_min
    from graphseq.ops.segment import segment_sum as segment_sum
    from graphseq.ops.segment_backends import segment_backend as segment_backend
    from graphseq.ops.softmax import segment_softmax as segment_softmax

_FILES: dict[str, str] = {
    "segment_argmax": "segment",
    "segment_backend": "segment_backends",
    "segment_max": "segment",
    "segment_mean": "segment",
    "segment_min": "segment",
    "segment_softmax": "softmax",
    "segment_sum": "segment",
}
__getattr__, __dir__, __all__ = attach(__name__, _FILES)
