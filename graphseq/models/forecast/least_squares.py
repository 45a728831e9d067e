"""Linear forecasts in closed form."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from graphseq.core.spec import Recorded
from graphseq.core.windows import SeriesSpan
from graphseq.models.forecast.naive import checked_targets

__all__ = ["LeastSquaresForecaster"]

_CHUNK = 2**22
"""Numbers of a design matrix that are held at once while its products are added up."""


class LeastSquaresForecaster(Recorded, nn.Module):
    r"""Ridge regression of the future steps on the past ones, solved in closed form over the training span.

    .. math:: W = (X^\top X + \lambda n I)^{-1} X^\top Y

    The rows of X are all windows of the training span without a missing value, those of Y the steps after them; an
    intercept is not penalised. With ``own`` each variable is predicted from its own past (linear autoregression, direct
    for each step), with ``all`` from the past of all variables of its series (vector autoregression). One map serves
    all series.

    Memory: the products :math:`X^\top X`, of ``window`` or ``window x num_variables`` squared numbers in float64; the
    design matrix is never held whole.

    Args:
        window: number of steps T that are read, at least 1.
        horizon: number of steps Z to predict, at least 1.
        num_variables: number of variables V, at least 1.
        inputs: ``own`` past of the variable, or the past of ``all``.
        targets: positions of the variables to predict; None for all.
        ridge: penalty :math:`\lambda`, at least 0; relative to scaled values.

    Shape:
        x (B, S, T, V) -> (B, S, Z, K)

    Raises:
        ValueError: if an argument is out of range; in :meth:`fit_to`, if no window is without missing values; in
            ``forward`` on a CPU, if it was not fitted (elsewhere forecasts are then NaN).

    Example:
        >>> network = LeastSquaresForecaster(window=3, horizon=2, num_variables=1, ridge=0.0)
        >>> line = torch.arange(20.0, dtype=torch.float64).view(1, 20, 1)
        >>> network.fit_to(SeriesSpan(line, line, torch.ones_like(line, dtype=torch.bool)))
        >>> network(torch.tensor([7.0, 8.0, 9.0]).view(1, 1, 3, 1)).flatten().round(decimals=3)
        tensor([10., 11.])
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        window: int,
        horizon: int,
        num_variables: int,
        *,
        inputs: Literal["own", "all"] = "own",
        targets: Sequence[int] | None = None,
        ridge: float = 1e-4,
    ) -> None:
        super().__init__()
        for name, value in (("window", window), ("horizon", horizon), ("num_variables", num_variables)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if inputs not in ("own", "all"):
            raise ValueError(f"inputs is {inputs!r}; it must be 'own' or 'all'")
        if ridge < 0:
            raise ValueError(f"ridge is {ridge}; it must be at least 0")
        self.window, self.horizon = window, horizon
        self.inputs = inputs
        self.targets = checked_targets(targets, num_variables) or []
        self.ridge = ridge
        width = window if inputs == "own" else window * num_variables
        # not a number until they are solved for: zeros would pass for a forecast
        self.register_buffer("weight", torch.full((len(self.targets), width, horizon), torch.nan))
        self.register_buffer("bias", torch.full((len(self.targets), horizon), torch.nan))

    def fit_to(self, span: SeriesSpan) -> None:
        """Solve the regression over the training span.

        Args:
            span: series of the training span.
        """
        length = self.window + self.horizon
        windows = span.scaled.double().unfold(1, length, 1)  # (S, N, V, T + Z)
        known = span.observed.unfold(1, length, 1)
        for number, target in enumerate(self.targets):
            complete = (known[:, :, target] if self.inputs == "own" else known.flatten(2)).all(-1)  # (S, N)
            if not bool(complete.any()):
                raise ValueError(
                    f"no window of {self.window} and horizon of {self.horizon} steps is without missing values for "
                    f"variable {target}; give a shorter window, or fill the gaps"
                )
            self.weight[number], self.bias[number] = self._solve(windows, complete, target)

    def _solve(self, windows: Tensor, complete: Tensor, target: int) -> tuple[Tensor, Tensor]:
        """Add up the normal equations over chunks of windows, and solve them."""
        width, count = self.weight.shape[1], 0
        gram = windows.new_zeros(width + 1, width + 1)
        moment = windows.new_zeros(width + 1, self.horizon)
        for series, rows in zip(windows, complete, strict=True):
            for part in rows.nonzero()[:, 0].split(max(_CHUNK // (width + 1), 1)):
                chosen = series[part]  # (n, V, T + Z)
                past = chosen[:, target] if self.inputs == "own" else chosen.transpose(1, 2)
                x = past[:, : self.window].flatten(1)  # (n, T) or (n, T V), steps first
                x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
                gram += x.T @ x
                moment += x.T @ chosen[:, target, self.window :]
                count += len(x)
        penalty = torch.full((width + 1,), self.ridge * count, dtype=gram.dtype, device=gram.device)
        penalty[-1] = 0
        solved = torch.linalg.lstsq(gram + penalty.diag(), moment, driver=None if gram.is_cuda else "gelsd").solution
        return solved[:-1].to(self.weight.dtype), solved[-1].to(self.bias.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return the forecast of the steps after a window.

        Args:
            x: past values (B, S, T, V).
        """
        if x.dim() != 4 or x.shape[2] != self.window:
            raise ValueError(f"x is {tuple(x.shape)}; it must be (batch, series, {self.window}, variables)")
        if self.bias.device.type == "cpu" and bool(self.bias.isnan().any()):  # elsewhere it would synchronise
            raise ValueError(
                "the regression is not solved yet; train with graphseq.tasks.ClosedFormForecasting, load a checkpoint "
                "of such a run, or call fit_to(span)"
            )
        if self.inputs == "own":
            return torch.einsum("bstk,ktz->bszk", x[..., self.targets], self.weight) + self.bias.T
        return torch.einsum("bsi,kiz->bszk", x.flatten(2), self.weight) + self.bias.T
