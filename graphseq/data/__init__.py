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
    from graphseq.data.node_sets import ActorDataModule as ActorDataModule
    from graphseq.data.node_sets import PlanetoidDataModule as PlanetoidDataModule
    from graphseq.data.nodes import NodeDataModule as NodeDataModule
    from graphseq.data.splits import check_fractions as check_fractions
    from graphseq.data.splits import group_split as group_split
    from graphseq.data.splits import k_fold_split as k_fold_split
    from graphseq.data.splits import ordered_split as ordered_split
    from graphseq.data.splits import random_split as random_split
    from graphseq.data.splits import size_split as size_split
    from graphseq.data.store import SingleStore as SingleStore
    from graphseq.data.store import Store as Store
    from graphseq.data.store import TensorStore as TensorStore
    from graphseq.data.tabular import TabularDataModule as TabularDataModule
    from graphseq.data.transforms import Compose as Compose
    from graphseq.data.transforms import GaussianNoise as GaussianNoise
    from graphseq.data.transforms import Normalize as Normalize
    from graphseq.data.transforms import RandomCrop as RandomCrop
    from graphseq.data.transforms import RandomHorizontalFlip as RandomHorizontalFlip
    from graphseq.data.transforms import ToFloat as ToFloat
    from graphseq.data.tu import TUDataModule as TUDataModule

_FILES: dict[str, str] = {
    "ActorDataModule": "node_sets",
    "BatchLoader": "loader",
    "Compose": "transforms",
    "DigitGraphsDataModule": "digits",
    "GaussianNoise": "transforms",
    "GraphDataModule": "graphs",
    "GraphSetDataModule": "graphs",
    "GraphStore": "graph_store",
    "ImageDataModule": "images",
    "MoleculeDataModule": "molecules",
    "NodeDataModule": "nodes",
    "Normalize": "transforms",
    "PlanetoidDataModule": "node_sets",
    "RandomCrop": "transforms",
    "RandomHorizontalFlip": "transforms",
    "SingleStore": "store",
    "Store": "store",
    "StoreDataModule": "base",
    "TUDataModule": "tu",
    "TabularDataModule": "tabular",
    "TensorStore": "store",
    "ToFloat": "transforms",
    "cache_folder": "cache",
    "cached": "cache",
    "check_fractions": "splits",
    "checksum": "cache",
    "group_split": "splits",
    "k_fold_split": "splits",
    "ordered_split": "splits",
    "pixel_graphs": "digits",
    "random_split": "splits",
    "raw_files": "cache",
    "read_cifar_batches": "image_files",
    "read_idx": "image_files",
    "read_idx_pair": "image_files",
    "read_jpeg_archive": "image_files",
    "read_usps_hdf5": "image_files",
    "scaffold": "molecules",
    "shift_images": "digits",
    "size_split": "splits",
}
__getattr__, __dir__, __all__ = attach(__name__, _FILES)
