"""Stores of tensors on one device, loaders that index them, and data modules."""

from typing import TYPE_CHECKING

from graphseq.core.lazy import attach

if TYPE_CHECKING:
    from graphseq.data.base import StoreDataModule as StoreDataModule
    from graphseq.data.cache import cache_folder as cache_folder
    from graphseq.data.cache import cached as cached
    from graphseq.data.cache import checksum as checksum
    from graphseq.data.cache import raw_files as raw_files
    from graphseq.data.digits import DigitGraphsDataModule as DigitGraphsDataModule
    from graphseq.data.digits import pixel_graphs as pixel_graphs
    from graphseq.data.digits import shift_images as shift_images
    from graphseq.data.environments import group_environments as group_environments
    from graphseq.data.environments import size_environments as size_environments
    from graphseq.data.event_batching import AdaptiveBatches as AdaptiveBatches
    from graphseq.data.event_batching import Batching as Batching
    from graphseq.data.event_batching import FixedBatches as FixedBatches
    from graphseq.data.event_batching import RandomChunkBatches as RandomChunkBatches
    from graphseq.data.event_batching import TBatches as TBatches
    from graphseq.data.event_batching import TimeWindowBatches as TimeWindowBatches
    from graphseq.data.event_files import read_contacts as read_contacts
    from graphseq.data.event_files import read_edge_list as read_edge_list
    from graphseq.data.event_files import read_event_table as read_event_table
    from graphseq.data.event_files import read_jodie_csv as read_jodie_csv
    from graphseq.data.event_files import read_node_labels as read_node_labels
    from graphseq.data.event_files import read_signed_edges as read_signed_edges
    from graphseq.data.event_loader import EventLoader as EventLoader
    from graphseq.data.event_store import EventStore as EventStore
    from graphseq.data.graph_store import GraphStore as GraphStore
    from graphseq.data.graphs import GraphDataModule as GraphDataModule
    from graphseq.data.graphs import GraphSetDataModule as GraphSetDataModule
    from graphseq.data.image_files import read_cifar_batches as read_cifar_batches
    from graphseq.data.image_files import read_idx as read_idx
    from graphseq.data.image_files import read_idx_pair as read_idx_pair
    from graphseq.data.image_files import read_jpeg_archive as read_jpeg_archive
    from graphseq.data.image_files import read_usps_hdf5 as read_usps_hdf5
    from graphseq.data.images import ImageDataModule as ImageDataModule
    from graphseq.data.loader import BatchLoader as BatchLoader
    from graphseq.data.molecules import MoleculeDataModule as MoleculeDataModule
    from graphseq.data.molecules import scaffold as scaffold
    from graphseq.data.motifs import MotifDataModule as MotifDataModule
    from graphseq.data.motifs import motif_graphs as motif_graphs
    from graphseq.data.negatives import HistoricalNegatives as HistoricalNegatives
    from graphseq.data.negatives import InductiveNegatives as InductiveNegatives
    from graphseq.data.negatives import NegativeSampler as NegativeSampler
    from graphseq.data.negatives import RandomNegatives as RandomNegatives
    from graphseq.data.node_sets import ActorDataModule as ActorDataModule
    from graphseq.data.node_sets import PlanetoidDataModule as PlanetoidDataModule
    from graphseq.data.nodes import NodeDataModule as NodeDataModule
    from graphseq.data.ranking_negatives import RankingNegatives as RankingNegatives
    from graphseq.data.splits import check_fractions as check_fractions
    from graphseq.data.splits import group_split as group_split
    from graphseq.data.splits import k_fold_split as k_fold_split
    from graphseq.data.splits import ordered_split as ordered_split
    from graphseq.data.splits import pooled_split as pooled_split
    from graphseq.data.splits import random_split as random_split
    from graphseq.data.splits import size_split as size_split
    from graphseq.data.store import SingleStore as SingleStore
    from graphseq.data.store import Store as Store
    from graphseq.data.store import TensorStore as TensorStore
    from graphseq.data.superpixels import SuperpixelDataModule as SuperpixelDataModule
    from graphseq.data.superpixels import find_superpixels as find_superpixels
    from graphseq.data.tabular import TabularDataModule as TabularDataModule
    from graphseq.data.temporal import TemporalDataModule as TemporalDataModule
    from graphseq.data.temporal import chronological_split as chronological_split
    from graphseq.data.temporal import hold_out_nodes as hold_out_nodes
    from graphseq.data.temporal import node_gaps as node_gaps
    from graphseq.data.temporal_adjacency import TemporalAdjacency as TemporalAdjacency
    from graphseq.data.temporal_events import TemporalEvents as TemporalEvents
    from graphseq.data.temporal_sets import BitcoinDataModule as BitcoinDataModule
    from graphseq.data.temporal_sets import CollegeMsgDataModule as CollegeMsgDataModule
    from graphseq.data.temporal_sets import EnronDataModule as EnronDataModule
    from graphseq.data.temporal_sets import EventCSVDataModule as EventCSVDataModule
    from graphseq.data.temporal_sets import JODIEDataModule as JODIEDataModule
    from graphseq.data.temporal_sets import PrimarySchoolDataModule as PrimarySchoolDataModule
    from graphseq.data.temporal_synthetic import SyntheticEventsDataModule as SyntheticEventsDataModule
    from graphseq.data.temporal_synthetic import periodic_events as periodic_events
    from graphseq.data.transforms import Compose as Compose
    from graphseq.data.transforms import GaussianNoise as GaussianNoise
    from graphseq.data.transforms import Normalize as Normalize
    from graphseq.data.transforms import RandomCrop as RandomCrop
    from graphseq.data.transforms import RandomHorizontalFlip as RandomHorizontalFlip
    from graphseq.data.transforms import ToFloat as ToFloat
    from graphseq.data.triangles import TrianglesDataModule as TrianglesDataModule
    from graphseq.data.triangles import triangle_graphs as triangle_graphs
    from graphseq.data.tu import TUDataModule as TUDataModule

_FILES: dict[str, str] = {
    "ActorDataModule": "node_sets",
    "AdaptiveBatches": "event_batching",
    "BatchLoader": "loader",
    "Batching": "event_batching",
    "BitcoinDataModule": "temporal_sets",
    "CollegeMsgDataModule": "temporal_sets",
    "Compose": "transforms",
    "DigitGraphsDataModule": "digits",
    "EnronDataModule": "temporal_sets",
    "EventCSVDataModule": "temporal_sets",
    "EventLoader": "event_loader",
    "EventStore": "event_store",
    "FixedBatches": "event_batching",
    "GaussianNoise": "transforms",
    "GraphDataModule": "graphs",
    "GraphSetDataModule": "graphs",
    "GraphStore": "graph_store",
    "HistoricalNegatives": "negatives",
    "ImageDataModule": "images",
    "InductiveNegatives": "negatives",
    "JODIEDataModule": "temporal_sets",
    "MoleculeDataModule": "molecules",
    "MotifDataModule": "motifs",
    "NegativeSampler": "negatives",
    "NodeDataModule": "nodes",
    "Normalize": "transforms",
    "PlanetoidDataModule": "node_sets",
    "PrimarySchoolDataModule": "temporal_sets",
    "RandomChunkBatches": "event_batching",
    "RandomCrop": "transforms",
    "RandomHorizontalFlip": "transforms",
    "RandomNegatives": "negatives",
    "RankingNegatives": "ranking_negatives",
    "SingleStore": "store",
    "Store": "store",
    "StoreDataModule": "base",
    "SuperpixelDataModule": "superpixels",
    "SyntheticEventsDataModule": "temporal_synthetic",
    "TBatches": "event_batching",
    "TUDataModule": "tu",
    "TabularDataModule": "tabular",
    "TemporalAdjacency": "temporal_adjacency",
    "TemporalDataModule": "temporal",
    "TemporalEvents": "temporal_events",
    "TensorStore": "store",
    "TimeWindowBatches": "event_batching",
    "ToFloat": "transforms",
    "TrianglesDataModule": "triangles",
    "cache_folder": "cache",
    "cached": "cache",
    "check_fractions": "splits",
    "checksum": "cache",
    "chronological_split": "temporal",
    "find_superpixels": "superpixels",
    "group_environments": "environments",
    "group_split": "splits",
    "hold_out_nodes": "temporal",
    "k_fold_split": "splits",
    "motif_graphs": "motifs",
    "node_gaps": "temporal",
    "ordered_split": "splits",
    "periodic_events": "temporal_synthetic",
    "pixel_graphs": "digits",
    "pooled_split": "splits",
    "random_split": "splits",
    "raw_files": "cache",
    "read_cifar_batches": "image_files",
    "read_contacts": "event_files",
    "read_edge_list": "event_files",
    "read_event_table": "event_files",
    "read_idx": "image_files",
    "read_idx_pair": "image_files",
    "read_jodie_csv": "event_files",
    "read_jpeg_archive": "image_files",
    "read_node_labels": "event_files",
    "read_signed_edges": "event_files",
    "read_usps_hdf5": "image_files",
    "scaffold": "molecules",
    "shift_images": "digits",
    "size_environments": "environments",
    "size_split": "splits",
    "triangle_graphs": "triangles",
}
__getattr__, __dir__, __all__ = attach(__name__, _FILES)
