"""Numbers: ``torchmetrics.Metric`` classes and their functional twins."""

from typing import TYPE_CHECKING

from graphseq.core.lazy import attach

if TYPE_CHECKING:
    from graphseq.metrics.multilabel import MaskedAUROC as MaskedAUROC
    from graphseq.metrics.multilabel import MaskedAveragePrecision as MaskedAveragePrecision
    from graphseq.metrics.multilabel import masked_auroc as masked_auroc
    from graphseq.metrics.multilabel import masked_average_precision as masked_average_precision
    from graphseq.metrics.regression import MaskedMeanAbsoluteError as MaskedMeanAbsoluteError
    from graphseq.metrics.regression import MaskedRootMeanSquaredError as MaskedRootMeanSquaredError
    from graphseq.metrics.regression import masked_mean_absolute_error as masked_mean_absolute_error
    from graphseq.metrics.regression import masked_root_mean_squared_error as masked_root_mean_squared_error

_FILES: dict[str, str] = {
    "MaskedAUROC": "multilabel",
    "MaskedAveragePrecision": "multilabel",
    "MaskedMeanAbsoluteError": "regression",
    "MaskedRootMeanSquaredError": "regression",
    "masked_auroc": "multilabel",
    "masked_average_precision": "multilabel",
    "masked_mean_absolute_error": "regression",
    "masked_root_mean_squared_error": "regression",
}
__getattr__, __dir__, __all__ = attach(__name__, _FILES)
