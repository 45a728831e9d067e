"""Columns that are given to a live stream: conversion to tensors, and what is wrong with them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphseq.core.dates import seconds_of
from graphseq.core.errors import DataError
from graphseq.core.events import EventBatch

__all__: list[str] = []

_EXACT = 2**53
"""Whole numbers below this are exact in float64, in which times are kept."""


def given_events(src: Any, dst: Any, t: Any, msg: Any, event_type: Any) -> EventBatch:
    """Return columns as a batch; lengths and values are not checked yet.

    Args:
        src: sources (E,).
        dst: destinations (E,).
        t: times or dates (E,).
        msg: features (E, D), or None.
        event_type: types (E,), or None.

    Raises:
        DataError: if a column holds something else.
    """
    sources = as_ids("src", src)
    dates = None if isinstance(t, Tensor | int | float) else seconds_of("t", t)
    times = _as_numbers("t", t if dates is None else dates)
    features = torch.zeros(len(sources), 0) if msg is None else _as_numbers("msg", msg)
    kinds = None if event_type is None else as_ids("event_type", event_type)
    return EventBatch(sources, as_ids("dst", dst), times, features, sources, start=0, event_type=kinds)


def usable_events(events: EventBatch, msg_channels: int, offset: float) -> EventBatch:
    """Return columns and negatives of a batch, times from the offset on.

    Args:
        events: batch with given columns.
        msg_channels: number of features that the network was trained on.
        offset: number that is subtracted from the times.

    Raises:
        DataError: if columns differ in length, are not finite or not sorted; the message says what is wrong.
    """
    src, dst, t = as_ids("src", events.src), as_ids("dst", events.dst), as_times(events.t, offset)
    kinds = None if events.event_type is None else as_ids("event_type", events.event_type)
    lengths = {"src": len(src), "dst": len(dst), "t": len(t)} | ({} if kinds is None else {"event_type": len(kinds)})
    if len(set(lengths.values())) != 1:
        raise DataError(f"columns differ in length: {lengths}; give one entry for each event")
    msg = events.msg
    if msg.shape != (len(src), msg_channels):
        raise DataError(
            f"msg has shape {tuple(msg.shape)}; the network was trained on {msg_channels} features an event, so it "
            f"must be {(len(src), msg_channels)}"
        )
    if not bool(torch.isfinite(msg).all()):
        raise DataError("msg holds NaN or infinite values, which would stay in memory; drop or correct these events")
    backwards = (t.diff() < 0).nonzero()
    if len(backwards):
        at = int(backwards[0]) + 1
        raise DataError(
            f"times are not sorted: event {at} of the chunk is at {plain(float(t[at]) + offset)}, the one before at "
            f"{plain(float(t[at - 1]) + offset)}; sort the chunk by time"
        )
    if kinds is not None and len(kinds) and int(kinds.min()) < 0:
        raise DataError(f"event_type has a {int(kinds.min())}; types are numbered from 0")
    for name in ("neg_dst", "neg_src"):
        value = getattr(events, name)
        if value is not None and (value.dim() != 2 or len(value) != len(src) or value.dtype != torch.int64):
            raise DataError(f"{name} is {value.dtype} {tuple(value.shape)}; it must be int64 ({len(src)}, negatives)")
    return EventBatch(src, dst, t, msg, src, start=0, event_type=kinds, neg_dst=events.neg_dst, neg_src=events.neg_src)


def _as_numbers(name: str, value: Any) -> Tensor:
    """Return numbers as they are, at least one-dimensional; numpy reads fractions as float64 where torch does not."""
    try:
        tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} is not a column of numbers: {error}") from error
    if tensor.dtype == torch.bool or tensor.is_complex():
        raise DataError(f"{name} is {tensor.dtype}; numbers are needed")
    return tensor.detach().reshape(1) if tensor.dim() == 0 else tensor.detach()


def as_integers(name: str, value: Any) -> Tensor:
    """Return integers as int64, at least one-dimensional.

    Args:
        name: name of the argument for error messages.
        value: numbers.

    Raises:
        DataError: if they are not integers.
    """
    tensor = _as_numbers(name, value)
    if tensor.is_floating_point() and tensor.numel():
        raise DataError(f"{name} is {tensor.dtype}; give nodes as integers")
    return tensor.to(torch.int64)


def as_ids(name: str, value: Any) -> Tensor:
    """Return one integer for each event as int64.

    Args:
        name: name of the argument for error messages.
        value: integers (E,), or one integer.

    Raises:
        DataError: if they are not integers, or have more dimensions.
    """
    tensor = as_integers(name, value)
    if tensor.dim() != 1:
        raise DataError(f"{name} has shape {tuple(tensor.shape)}; one integer for each event is needed")
    return tensor


def as_times(value: Any, offset: float) -> Tensor:
    """Return times as float64, counted from the offset.

    Args:
        value: times, integers or float64, or dates.
        offset: number that is subtracted from the times.

    Raises:
        DataError: if they are something else, not finite, or too large for float64.
    """
    dates = None if isinstance(value, Tensor | int | float) else seconds_of("t", value)
    t = _as_numbers("t", value if dates is None else dates)
    if t.dim() != 1:
        raise DataError(f"t has shape {tuple(t.shape)}; one time for each event is needed")
    if t.is_floating_point() and t.dtype != torch.float64:
        raise DataError(
            f"t is {t.dtype}, which cannot tell Unix times of the same minute apart: read times as integers or "
            "float64; do not convert them back"
        )
    if not bool(torch.isfinite(t).all()):
        at = int((~torch.isfinite(t)).nonzero()[0])
        raise DataError(f"t of event {at} of the chunk is {float(t[at])}; every event needs a time")
    if offset and not t.is_floating_point() and float(offset).is_integer():
        t = t - int(offset)  # before the conversion: of whole numbers the difference is exact
    elif offset:
        t = t.to(torch.float64) - offset
    if not t.is_floating_point() and t.numel() and int(t.abs().max()) >= _EXACT:
        raise DataError(
            f"t reaches {int(t.abs().max())} after time_offset = {plain(offset)}; times are kept as float64, exact "
            f"below {_EXACT}: give a time_offset, or a coarser unit"
        )
    return t.to(torch.float64)


def plain(t: float) -> str:
    """Return a time as text, without a fraction if it is whole.

    Args:
        t: time.
    """
    return f"{t:.0f}" if float(t).is_integer() else f"{t}"
