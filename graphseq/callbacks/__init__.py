"""What is added to any training from outside."""

from typing import TYPE_CHECKING

from graphseq.core.lazy import attach

if TYPE_CHECKING:
    from graphseq.callbacks.figures import draw_correlations as draw_correlations
    from graphseq.callbacks.figures import draw_effective_sample_size as draw_effective_sample_size
    from graphseq.callbacks.figures import draw_weights as draw_weights
    from graphseq.callbacks.weights import WeightReport as WeightReport

_FILES: dict[str, str] = {
    "WeightReport": "weights",
    "draw_correlations": "figures",
    "draw_effective_sample_size": "figures",
    "draw_weights": "figures",
}
__getattr__, __dir__, __all__ = attach(__name__, _FILES)
