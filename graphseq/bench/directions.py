"""Whether lower or higher values of a metric are better, judged by its name."""

import re

__all__ = ["lower_is_better"]

_LOWER = re.compile(
    r"loss|error|mae|mse|mase|mape|msle|nll|perplexity|ppl|bpc|penalty|pinball|forgetting", re.IGNORECASE
)
_LOWER_WORDS = ("gap", "length")  # of tours


def lower_is_better(metric: str) -> bool:
    """Return whether a metric is a loss or an error, by its name.

    Args:
        metric: name of the metric, with or without its stage, such as ``val/rmse`` or ``mae@3``.

    Example:
        >>> lower_is_better("val/rmse"), lower_is_better("val/ap")
        (True, False)
    """
    name = metric.rpartition("/")[2]
    return name in _LOWER_WORDS or _LOWER.search(name) is not None
