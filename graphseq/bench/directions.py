"""Whether lower or higher values of a metric are better, judged by its name."""

import re

__all__ = ["lower_is_better"]

_LOWER = re.compile(r"loss|error|mae|mse|mase|mape|msle|nll|perplexity|ppl|bpc|penalty", re.IGNORECASE)


def lower_is_better(metric: str) -> bool:
    """Return whether a metric is a loss or an error, by its name.

    Args:
        metric: name of the metric, with or without its stage, such as ``val/rmse`` or ``mae@3``.

    Example:
        >>> lower_is_better("val/rmse"), lower_is_better("val/ap")
        (True, False)
    """
    return _LOWER.search(metric.rpartition("/")[2]) is not None
