"""Forecasts in closed form are those of statsmodels, the established implementation, at the same parameters."""

import numpy as np
import pytest
import torch

from graphseq.core.windows import SeriesSpan
from graphseq.models import ExponentialSmoothing, LeastSquaresForecaster

statsmodels = pytest.importorskip("statsmodels")


def panel(steps=80, variables=3):
    """Three variables that drive each other, (steps, variables)."""
    draw = np.random.default_rng(0)
    move = np.array([[0.5, 0.3, 0.0], [0.0, 0.4, -0.4], [0.2, 0.0, 0.6]])[:variables, :variables]
    rows = [draw.standard_normal(variables)]
    for _ in range(steps - 1):
        rows.append(move @ rows[-1] + 0.3 + 0.5 * draw.standard_normal(variables))
    return np.stack(rows)


@pytest.mark.parametrize("window", [1, 3])
def test_vector_autoregression(window):
    """Least squares over all variables, one step ahead, is VAR(p) with a constant."""
    from statsmodels.tsa.api import VAR

    values = panel()
    ours = LeastSquaresForecaster(window, 1, 3, inputs="all", ridge=0.0).double()
    series = torch.tensor(values)[None]
    ours.fit_to(SeriesSpan(series, series, torch.ones_like(series, dtype=torch.bool)))
    fitted = VAR(values).fit(window, trend="c")
    expected = fitted.forecast(values[-window:], 1)
    found = ours(series[:, None, -window:]).squeeze((0, 1))
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-8, atol=1e-8)


def test_autoregression():
    """Least squares over the own past is AR(p) with a constant."""
    from statsmodels.tsa.ar_model import AutoReg

    values = panel(variables=1)
    series = torch.tensor(values)[None]
    ours = LeastSquaresForecaster(4, 1, 1, inputs="own", ridge=0.0).double()
    ours.fit_to(SeriesSpan(series, series, torch.ones_like(series, dtype=torch.bool)))
    expected = AutoReg(values[:, 0], 4, trend="c").fit().forecast(1)
    torch.testing.assert_close(ours(series[:, None, -4:]).flatten(), torch.tensor(expected), rtol=1e-8, atol=1e-8)


def test_exponential_smoothing():
    """At the same rates and first state, the forecast is that of Holt's damped method."""
    from statsmodels.tsa.holtwinters import ExponentialSmoothing as Holt

    window = panel(20, 1)[:, 0]
    ours = ExponentialSmoothing(20, 6).double()
    ours.reset_parameters()
    alpha, beta, phi = ours.rates.tolist()
    level, trend = window[0], window[1] - window[0]
    # ours begins after the first value, at level x_1 and trend x_2 - x_1; theirs before its first value
    model = Holt(window[1:], trend="add", damped_trend=True, initialization_method="known",
                 initial_level=level, initial_trend=trend)  # fmt: skip
    fitted = model.fit(smoothing_level=alpha, smoothing_trend=beta, damping_trend=phi, optimized=False)
    found = ours(torch.tensor(window).view(1, 1, 20, 1)).flatten()
    torch.testing.assert_close(found, torch.tensor(fitted.forecast(6)), rtol=1e-8, atol=1e-8)
