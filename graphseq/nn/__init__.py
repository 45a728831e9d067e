"""Layers: plain ``torch.nn.Module`` classes that know tensors and nothing of training."""

from typing import TYPE_CHECKING

from graphseq.core.lazy import attach

if TYPE_CHECKING:
    from graphseq.nn.graph.convolutions import gin_mlp as gin_mlp
    from graphseq.nn.graph.convolutions import make_convolution as make_convolution
    from graphseq.nn.graph.encoders import CategoricalEncoder as CategoricalEncoder
    from graphseq.nn.graph.encoders import FeatureEncoder as FeatureEncoder
    from graphseq.nn.graph.outer import DecorrelationOuter as DecorrelationOuter
    from graphseq.nn.graph.outer import OuterBatch as OuterBatch
    from graphseq.nn.graph.outer import UnrolledOuter as UnrolledOuter
    from graphseq.nn.graph.outer import VirtualLearner as VirtualLearner
    from graphseq.nn.graph.pooling import GraphPool as GraphPool
    from graphseq.nn.graph.pooling import graph_index as graph_index
    from graphseq.nn.graph.reweight import FeatureQueue as FeatureQueue
    from graphseq.nn.graph.reweight import SampleWeights as SampleWeights
    from graphseq.nn.graph.virtual_node import VirtualNode as VirtualNode
    from graphseq.nn.losses.coherence import memory_coherence_loss as memory_coherence_loss
    from graphseq.nn.losses.environments import CORAL as CORAL
    from graphseq.nn.losses.environments import EnvironmentBatch as EnvironmentBatch
    from graphseq.nn.losses.environments import GroupDRO as GroupDRO
    from graphseq.nn.losses.environments import InvariantRisk as InvariantRisk
    from graphseq.nn.losses.environments import VarianceRisk as VarianceRisk
    from graphseq.nn.temporal.apan import APANEncoder as APANEncoder
    from graphseq.nn.temporal.apan import APANMemory as APANMemory
    from graphseq.nn.temporal.decoder import LinkDecoder as LinkDecoder
    from graphseq.nn.temporal.embeddings import IdentityEmbedding as IdentityEmbedding
    from graphseq.nn.temporal.embeddings import TemporalAttentionEmbedding as TemporalAttentionEmbedding
    from graphseq.nn.temporal.embeddings import TemporalEmbedding as TemporalEmbedding
    from graphseq.nn.temporal.embeddings import TemporalSumEmbedding as TemporalSumEmbedding
    from graphseq.nn.temporal.embeddings import TimeProjectionEmbedding as TimeProjectionEmbedding
    from graphseq.nn.temporal.embeddings import TransformerEmbedding as TransformerEmbedding
    from graphseq.nn.temporal.fused_attention import neighbor_attention as neighbor_attention
    from graphseq.nn.temporal.fused_gru import mail_gru as mail_gru
    from graphseq.nn.temporal.mailbox import Mailbox as Mailbox
    from graphseq.nn.temporal.memory import MemoryRead as MemoryRead
    from graphseq.nn.temporal.memory import NodeMemory as NodeMemory
    from graphseq.nn.temporal.neighbor_buffer import RecentNeighborBuffer as RecentNeighborBuffer
    from graphseq.nn.temporal.node_decoder import NodeDecoder as NodeDecoder
    from graphseq.nn.temporal.plan import Distinct as Distinct
    from graphseq.nn.temporal.plan import Plan as Plan
    from graphseq.nn.temporal.plan import Rows as Rows
    from graphseq.nn.temporal.plan import Seats as Seats
    from graphseq.nn.temporal.plan import plan_batch as plan_batch
    from graphseq.nn.temporal.pres import PRESCorrector as PRESCorrector
    from graphseq.nn.temporal.time_encoding import TimeEncoder as TimeEncoder

_FILES: dict[str, str] = {
    "APANEncoder": "temporal.apan",
    "APANMemory": "temporal.apan",
    "CORAL": "losses.environments",
    "CategoricalEncoder": "graph.encoders",
    "DecorrelationOuter": "graph.outer",
    "Distinct": "temporal.plan",
    "EnvironmentBatch": "losses.environments",
    "FeatureEncoder": "graph.encoders",
    "FeatureQueue": "graph.reweight",
    "GraphPool": "graph.pooling",
    "GroupDRO": "losses.environments",
    "IdentityEmbedding": "temporal.embeddings",
    "InvariantRisk": "losses.environments",
    "LinkDecoder": "temporal.decoder",
    "Mailbox": "temporal.mailbox",
    "MemoryRead": "temporal.memory",
    "NodeDecoder": "temporal.node_decoder",
    "NodeMemory": "temporal.memory",
    "OuterBatch": "graph.outer",
    "PRESCorrector": "temporal.pres",
    "Plan": "temporal.plan",
    "RecentNeighborBuffer": "temporal.neighbor_buffer",
    "Rows": "temporal.plan",
    "SampleWeights": "graph.reweight",
    "Seats": "temporal.plan",
    "TemporalAttentionEmbedding": "temporal.embeddings",
    "TemporalEmbedding": "temporal.embeddings",
    "TemporalSumEmbedding": "temporal.embeddings",
    "TimeEncoder": "temporal.time_encoding",
    "TimeProjectionEmbedding": "temporal.embeddings",
    "TransformerEmbedding": "temporal.embeddings",
    "UnrolledOuter": "graph.outer",
    "VarianceRisk": "losses.environments",
    "VirtualLearner": "graph.outer",
    "VirtualNode": "graph.virtual_node",
    "gin_mlp": "graph.convolutions",
    "graph_index": "graph.pooling",
    "mail_gru": "temporal.fused_gru",
    "make_convolution": "graph.convolutions",
    "memory_coherence_loss": "losses.coherence",
    "neighbor_attention": "temporal.fused_attention",
    "plan_batch": "temporal.plan",
}
__getattr__, __dir__, __all__ = attach(__name__, _FILES)
