from graphseq.metrics.coherence import PendingStatistics as PendingStatistics
from graphseq.metrics.coherence import memory_coherence as memory_coherence
from graphseq.metrics.coherence import num_pending_events as num_pending_events
from graphseq.metrics.coherence import pending_statistics as pending_statistics
from graphseq.metrics.forecasting import AtStep as AtStep
from graphseq.metrics.forecasting import MaskedMeanSquaredLogError as MaskedMeanSquaredLogError
from graphseq.metrics.forecasting import (
    MaskedSymmetricMeanAbsolutePercentageError as MaskedSymmetricMeanAbsolutePercentageError,
)
from graphseq.metrics.forecasting import MeanAbsoluteScaledError as MeanAbsoluteScaledError
from graphseq.metrics.forecasting import masked_mean_squared_log_error as masked_mean_squared_log_error
from graphseq.metrics.forecasting import (
    masked_symmetric_mean_absolute_percentage_error as masked_symmetric_mean_absolute_percentage_error,
)
from graphseq.metrics.forecasting import mean_absolute_scaled_error as mean_absolute_scaled_error
from graphseq.metrics.language import BitsPerCharacter as BitsPerCharacter
from graphseq.metrics.language import bits_per_character as bits_per_character
from graphseq.metrics.multilabel import MaskedAUROC as MaskedAUROC
from graphseq.metrics.multilabel import MaskedAveragePrecision as MaskedAveragePrecision
from graphseq.metrics.multilabel import masked_auroc as masked_auroc
from graphseq.metrics.multilabel import masked_average_precision as masked_average_precision
from graphseq.metrics.neurons import ActivationSparsity as ActivationSparsity
from graphseq.metrics.neurons import DeadNeuronRate as DeadNeuronRate
from graphseq.metrics.neurons import activation_sparsity as activation_sparsity
from graphseq.metrics.neurons import dead_neuron_rate as dead_neuron_rate
from graphseq.metrics.pointing.polygons import AreaCoverage as AreaCoverage
from graphseq.metrics.pointing.polygons import PolygonAccuracy as PolygonAccuracy
from graphseq.metrics.pointing.polygons import SimplePolygonRate as SimplePolygonRate
from graphseq.metrics.pointing.polygons import is_simple_polygon as is_simple_polygon
from graphseq.metrics.pointing.polygons import polygon_area as polygon_area
from graphseq.metrics.pointing.polygons import same_polygon as same_polygon
from graphseq.metrics.pointing.positions import ExactMatch as ExactMatch
from graphseq.metrics.pointing.positions import exact_match as exact_match
from graphseq.metrics.pointing.tours import TourGap as TourGap
from graphseq.metrics.pointing.tours import TourLength as TourLength
from graphseq.metrics.pointing.tours import ValidTourRate as ValidTourRate
from graphseq.metrics.pointing.tours import is_tour as is_tour
from graphseq.metrics.pointing.tours import tour_length as tour_length
from graphseq.metrics.pointing.triangles import TriangleAccuracy as TriangleAccuracy
from graphseq.metrics.pointing.triangles import TriangleCoverage as TriangleCoverage
from graphseq.metrics.pointing.triangles import shared_triangles as shared_triangles
from graphseq.metrics.probing import effective_rank as effective_rank
from graphseq.metrics.probing import linear_probe as linear_probe
from graphseq.metrics.prompts import PromptCoverage as PromptCoverage
from graphseq.metrics.prompts import PromptMagnitude as PromptMagnitude
from graphseq.metrics.prompts import prompt_coverage as prompt_coverage
from graphseq.metrics.prompts import prompt_magnitude as prompt_magnitude
from graphseq.metrics.quantiles import MeanPinballLoss as MeanPinballLoss
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
