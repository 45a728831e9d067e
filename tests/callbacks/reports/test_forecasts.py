"""Figures of forecasts show what they are given."""

import numpy as np
import pytest
import torch

from graphseq.callbacks import draw_errors_by_step, draw_forecasts, draw_mixing, draw_mixing_network


def test_forecasts_are_drawn_after_the_past() -> None:
    past, forecast, truth = torch.arange(10.0).view(5, 2), torch.ones(3, 2), torch.zeros(3, 2)
    first, second = draw_forecasts(past, forecast, truth, names=["a", "b"]).axes
    lines = {line.get_label(): line for line in second.get_lines()}
    assert np.array_equal(lines["past"].get_ydata(), [1, 3, 5, 7, 9])
    assert np.array_equal(lines["forecast"].get_xdata(), [5, 6, 7])
    assert np.array_equal(lines["truth"].get_ydata(), [0, 0, 0])
    assert first.get_title(loc="left") == "a"


def test_quantiles_are_a_band_around_the_middle() -> None:
    bands = torch.tensor([1.0, 2.0, 5.0]).expand(3, 1, 3)
    (axes,) = draw_forecasts(torch.zeros(4, 1), bands).axes
    line = next(line for line in axes.get_lines() if line.get_label() == "forecast")
    assert np.array_equal(line.get_ydata(), [2, 2, 2])
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (1, 5)


def test_errors_begin_at_zero_and_name_the_forecasts() -> None:
    (axes,) = draw_errors_by_step({"drift": [1.0, 2.0], "other": [3.0, 4.0]}).axes
    assert axes.get_ylim()[0] == 0
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["drift", "other"]
    assert np.array_equal(axes.get_lines()[1].get_ydata(), [3, 4])


def test_matrices_share_one_scale_around_zero() -> None:
    figure = draw_mixing({"before": torch.eye(2), "after": torch.tensor([[0.0, -4.0], [1.0, 0.0]])}, names=["x", "y"])
    images = [image for axes in figure.axes for image in axes.get_images()]
    assert [image.get_clim() for image in images] == [(-4, 4)] * 2
    assert np.array_equal(images[1].get_array(), [[0, -4], [1, 0]])


def test_arrows_lead_from_what_is_read_to_what_is_written() -> None:
    matrix = torch.tensor([[2.0, 0.0, 0.0], [-4.0, 0.0, 0.5], [0.0, 0.0, 0.0]])
    first, second = draw_mixing_network({"before": matrix, "after": torch.zeros(3, 3)}, names=["x", "y", "z"]).axes
    (arrow,) = (text for text in first.texts if text.arrow_patch)  # 0.5 is below a fifth of 4
    assert np.allclose(arrow.xyann, (0, 1), atol=1e-6)
    assert np.allclose(arrow.xy, (-np.sqrt(0.75), -0.5), atol=1e-6)
    assert np.allclose(arrow.arrow_patch.get_edgecolor()[:3], [0, 114 / 255, 178 / 255])  # blue: below 0
    assert [text.get_text() for text in first.texts if not text.arrow_patch] == ["x", "y", "z"]
    assert not [text for text in second.texts if text.arrow_patch]
    shares = first.collections[1].get_facecolors()[:, 3]
    assert shares.tolist() == [0.5, 0, 0]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="truth"):
        draw_forecasts(torch.zeros(5, 2), torch.zeros(3, 2), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="lengths"):
        draw_errors_by_step({"a": [1.0], "b": [1.0, 2.0]})
    with pytest.raises(ValueError, match="square"):
        draw_mixing({"a": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match="square"):
        draw_mixing_network({})
    with pytest.raises(ValueError, match="least is 2"):
        draw_mixing_network({"a": torch.eye(2)}, least=2)
