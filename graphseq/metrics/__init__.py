"""Numbers: ``torchmetrics.Metric`` classes and their functional twins."""

from typing import TYPE_CHECKING

from graphseq.core.lazy import attach

if TYPE_CHECKING:
    from graphseq.metrics.coherence import PendingStatistics as PendingStatistics
    from graphseq.metrics.coherence import memory_coherence as memory_coherence
    from graphseq.metrics.coherence import num_pending_events as num_pending_events
    from graphseq.metrics.coherence import pending_statistics as pending_statistics
    from graphseq.metrics.multilabel import MaskedAUROC as MaskedAUROC
    from graphseq.metrics.multilabel import MaskedAveragePrecision as MaskedAveragePrecision
    from graphseq.metrics.multilabel import masked_auroc as masked_auroc
    from graphseq.metrics.multilabel import masked_average_precision as masked_average_precision
    from graphseq.metrics.ranking import HitsAtK as HitsAtK
    from graphseq.metrics.ranking import LinkAUROC as LinkAUROC
    from graphseq.metrics.ranking import LinkAveragePrecision as LinkAveragePrecision
    from graphseq.metrics.ranking import MeanReciprocalRank as MeanReciprocalRank
    from graphseq.metrics.ranking import PerBatchAveragePrecision as PerBatchAveragePrecision
    from graphseq.metrics.ranking import hits_at_k as hits_at_k
    from graphseq.metrics.ranking import link_auroc as link_auroc
    from graphseq.metrics.ranking import link_average_precision as link_average_precision
    from graphseq.metrics.ranking import link_ranks as link_ranks
    from graphseq.metrics.ranking import mean_reciprocal_rank as mean_reciprocal_rank
    from graphseq.metrics.regression import MaskedMeanAbsoluteError as MaskedMeanAbsoluteError
    from graphseq.metrics.regression import MaskedRootMeanSquaredError as MaskedRootMeanSquaredError
    from graphseq.metrics.regression import masked_mean_absolute_error as masked_mean_absolute_error
    from graphseq.metrics.regression import masked_root_mean_squared_error as masked_root_mean_squared_error

_FILES: dict[str, str] = {
    "HitsAtK": "ranking",
    "LinkAUROC": "ranking",
    "LinkAveragePrecision": "ranking",
    "MaskedAUROC": "multilabel",
    "MaskedAveragePrecision": "multilabel",
    "MaskedMeanAbsoluteError": "regression",
    "MaskedRootMeanSquaredError": "regression",
    "MeanReciprocalRank": "ranking",
    "PendingStatistics": "coherence",
    "PerBatchAveragePrecision": "ranking",
    "hits_at_k": "ranking",
    "link_auroc": "ranking",
    "link_average_precision": "ranking",
    "link_ranks": "ranking",
    "masked_auroc": "multilabel",
    "masked_average_precision": "multilabel",
    "masked_mean_absolute_error": "regression",
    "masked_root_mean_squared_error": "regression",
    "mean_reciprocal_rank": "ranking",
    "memory_coherence": "coherence",
    "num_pending_events": "coherence",
    "pending_statistics": "coherence",
}
__getattr__, __dir__, __all__ = attach(__name__, _FILES)
