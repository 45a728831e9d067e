"""Encoders of raw node and edge features: categories are embedded, real features checked and mapped."""

from numbers import Integral
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphseq.core import DataError, Recorded
from graphseq.nn.causal import positive

__all__ = ["CategoricalEncoder", "FeatureEncoder"]


class CategoricalEncoder(Recorded, nn.Module):
    r"""Sum of the embeddings of several columns of categories, as atoms and bonds of molecules are encoded.

    .. math:: h_i = \sum_{f=1}^{F} W^{(f)}_{x_{if}}

    All columns share one table, and the lookup sums over columns, so that the embeddings of single columns are never
    in memory. Entries are drawn with variance 1/F, so that the sum has variance one.

    Source: arXiv 2005.00687, section 5. Differs from it: the initial scale.

    Args:
        num_categories: number of categories of each column.
        dim: width of each embedding and of their sum.

    Shape:
        input (N, F) or, for one column, (N,); integers in [0, num_categories[f]) -> output (N, dim)

    Raises:
        ValueError: if a column has no category, if there is no column, or if ``dim`` < 1.
        DataError: if the input is not integer or has another number of columns; on a CPU also if a value is out of
            its range. On a GPU such a value fails in the kernel, since a check would synchronise.

    Example:
        >>> CategoricalEncoder([5, 2], dim=8)(torch.tensor([[4, 0], [0, 1], [3, 1]])).shape
        torch.Size([3, 8])
    """

    offsets: Tensor
    counts: Tensor

    def __init__(self, num_categories: list[int], dim: int) -> None:
        super().__init__()
        counted = isinstance(num_categories, list | tuple) and all(
            isinstance(each, Integral) for each in num_categories
        )
        if not counted or not num_categories or min(num_categories) < 1:
            raise ValueError(
                f"CategoricalEncoder(num_categories={num_categories!r}): give a list of at least one column, "
                "and for each its number of categories, >= 1"
            )
        positive(dim=dim)
        self.num_categories = [int(each) for each in num_categories]
        counts = torch.tensor(self.num_categories)
        # they follow from the arguments, so they need not be in checkpoints
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("offsets", counts.cumsum(0) - counts, persistent=False)
        self.weight = nn.Parameter(torch.empty(sum(self.num_categories), dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialise all embeddings."""
        nn.init.normal_(self.weight, std=len(self.num_categories) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Sum the embeddings of the columns."""
        if not isinstance(x, Tensor):
            raise DataError(f"CategoricalEncoder takes a tensor of integers and got a {type(x).__name__}")
        if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise DataError(
                f"CategoricalEncoder takes integer categories and got {x.dtype}; "
                "for real features leave node_categories or edge_categories out"
            )
        x = x[:, None] if x.dim() == 1 else x  # (N, F)
        if x.dim() != 2 or x.size(1) != len(self.num_categories):
            raise DataError(
                f"CategoricalEncoder has {len(self.num_categories)} columns of categories and got an input "
                f"of shape {tuple(x.shape)}; give num_categories one entry for each column"
            )
        outside = (x < 0) | (x >= self.counts)
        if not x.is_cuda and bool(outside.any()):
            row, column = outside.nonzero()[0].tolist()
            raise DataError(
                f"category {int(x[row, column])} in row {row}, column {column} is out of range: this column has "
                f"{self.num_categories[column]} categories, from 0; raise num_categories[{column}] or map the values"
            )
        # otherwise a value too large for its column would silently read the rows of the next column
        rows = torch.where(outside, self.weight.size(0), x + self.offsets)
        return F.embedding_bag(rows, self.weight, mode="sum")  # (N, dim)

    def extra_repr(self) -> str:
        """Return the arguments that ``repr`` shows."""
        return f"{self.num_categories}, dim={self.weight.size(1)}"


class FeatureEncoder(Recorded, nn.Module):
    r"""Input layer of graph networks: categories are embedded, real features mapped linearly or left unchanged.

    It raises an error for missing features, integers that were not declared as categories, and features of another
    width, which would otherwise fail in a matrix product.

    Args:
        in_channels: width of real features; ignored if ``categories`` is given.
        out_channels: width of the result; None leaves real features unchanged.
        categories: number of categories of each column, see :class:`CategoricalEncoder`; None or [] for real
            features.
        field: name of the batch field that holds these features, for error messages.

    Shape:
        input (N, in_channels), or (N,) for one column -> output (N, out_channels)

    Raises:
        ValueError: if ``in_channels`` < 1 for real features, if ``out_channels`` is missing for categories or < 1, or
            if ``field`` is neither ``x`` nor ``edge_attr``.
        DataError: if the features of a batch do not fit.

    Example:
        >>> FeatureEncoder(3, 8)(torch.randn(5, 3)).shape
        torch.Size([5, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        *,
        categories: list[int] | None = None,
        field: Literal["x", "edge_attr"] = "x",
    ) -> None:
        super().__init__()
        if field not in ("x", "edge_attr"):
            raise ValueError(f"FeatureEncoder(field={field!r}): accepted are 'x' and 'edge_attr'")
        if out_channels is not None:
            positive(out_channels=out_channels)
        self.field = field
        self.in_channels = in_channels
        self._remedy = (
            "add node features with a transform such as torch_geometric.transforms.OneHotDegree or Constant"
            if field == "x"
            else "use a convolution without edge features, or data that have them"
        )
        self.embedding: nn.Module | None = None
        if categories:
            if out_channels is None:
                raise ValueError(f"FeatureEncoder(categories={categories}): give out_channels, the width of embeddings")
            self.embedding = CategoricalEncoder(categories, out_channels)
        elif in_channels < 1:
            raise ValueError(f"the data have {in_channels} features in {field}; {self._remedy}")
        else:
            positive(in_channels=in_channels)
        self.linear = nn.Linear(in_channels, out_channels) if not categories and out_channels is not None else None
        self.out_channels = in_channels if out_channels is None else out_channels

    def reset_parameters(self) -> None:
        """Reinitialise the embeddings or the linear map."""
        for module in (self.embedding, self.linear):
            if module is not None:
                module.reset_parameters()  # type: ignore[operator]

    def forward(self, features: Tensor | None) -> Tensor:
        """Check the features and encode them."""
        if features is None:
            raise DataError(f"the batch carries no {self.field}; {self._remedy}")
        if not isinstance(features, Tensor):
            raise DataError(
                f"{self.field} is a {type(features).__name__} where one tensor is needed: call the network with "
                "data.x, data.edge_index and so on; of a HeteroData, with those of data.to_homogeneous()"
            )
        if self.embedding is not None:
            return self.embedding(features)
        features = features[:, None] if features.dim() == 1 else features
        if not features.is_floating_point():
            categories = "node_categories" if self.field == "x" else "edge_categories"
            raise DataError(
                f"{self.field} holds {features.dtype} where real features are needed; if they are categories give "
                f"{categories}, the number of categories of each column, otherwise convert with .float()"
            )
        if features.dim() != 2 or features.size(1) != self.in_channels:
            raise DataError(
                f"{self.field} has shape {tuple(features.shape)} and the network was built for "
                f"{self.in_channels} features; build it with the width of the data"
            )
        return features if self.linear is None else self.linear(features)  # (N, out_channels)
