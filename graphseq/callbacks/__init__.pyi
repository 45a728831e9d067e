from graphseq.callbacks.figures import draw_correlations as draw_correlations
from graphseq.callbacks.figures import draw_effective_sample_size as draw_effective_sample_size
from graphseq.callbacks.figures import draw_weights as draw_weights
from graphseq.callbacks.forecasts import draw_errors_by_step as draw_errors_by_step
from graphseq.callbacks.forecasts import draw_forecasts as draw_forecasts
from graphseq.callbacks.forecasts import draw_mixing as draw_mixing
from graphseq.callbacks.moments import MomentMonitor as MomentMonitor
from graphseq.callbacks.weights import WeightReport as WeightReport
