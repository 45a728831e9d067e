from graphseq.analysis.groups import group_graph as group_graph
from graphseq.analysis.groups import group_modularity as group_modularity
from graphseq.analysis.structure import Prediction as Prediction
from graphseq.analysis.structure import graph_properties as graph_properties
from graphseq.analysis.structure import predict_performance as predict_performance
from graphseq.analysis.structure import property_correlations as property_correlations
