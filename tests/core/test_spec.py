import copy
import dataclasses
import enum
import functools
import pickle
import warnings
from abc import ABC, abstractmethod

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.nn import GIN, MessagePassing

from graphseq.core import MISSING, Recorded, make, public_path, record, to_spec


class Scale(Recorded, nn.Module):
    def __init__(self, factor: float = 1.0, *, bias: bool = False, **more):
        super().__init__()
        self.factor = factor


class Child(Scale):
    def __init__(self, width: int):
        super().__init__(width / 2, bias=True)


class Wrapper(Recorded, nn.Module):
    def __init__(self, inner: nn.Module, layers: list[nn.Module] | None = None):
        super().__init__()
        self.inner = inner


class Abstract(Recorded, ABC):
    @abstractmethod
    def run(self): ...


class Passing(Recorded, MessagePassing):
    def __init__(self, width: int):
        super().__init__(aggr="add")


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Options:
    depth: int = 2
    names: tuple[str, ...] = ("a", "b")


def test_notes_the_outermost_call_with_names():
    assert Scale(2.0, bias=True)._record == {
        "class_path": f"{__name__}.Scale",
        "init_args": {"factor": 2.0, "bias": True},
    }
    assert Child(6)._record == {"class_path": f"{__name__}.Child", "init_args": {"width": 6}}
    assert Child(6).factor == 3


def test_defaults_stay_in_the_constructor():
    assert Scale()._record["init_args"] == {}


def test_keyword_arguments_are_flat():
    assert Scale(more_than=3)._record["init_args"] == {"more_than": 3}


def test_nested_and_listed_modules():
    noted = Wrapper(Scale(2.0), layers=[Scale(3.0), make(nn.Linear, 2, 3)])._record["init_args"]
    assert noted["inner"]["init_args"] == {"factor": 2.0}
    assert [layer["class_path"] for layer in noted["layers"]] == [f"{__name__}.Scale", "torch.nn.Linear"]


def test_foreign_module_is_left_out_with_a_warning_that_names_it():
    with pytest.warns(UserWarning, match=r"Wrapper\(inner=\.\.\.\).*Linear.*make"):
        wrapper = Wrapper(nn.Linear(2, 3))
    assert wrapper._record["init_args"] == {}


def test_make_records_foreign_classes():
    net = make(GIN, 7, 64, num_layers=3)
    assert net._record == {
        "class_path": "torch_geometric.nn.GIN",
        "init_args": {"in_channels": 7, "hidden_channels": 64, "num_layers": 3},
    }


def test_copies_and_pickles_keep_the_record():
    for module in (Scale(2.0), make(nn.Linear, 2, 3), Passing(4)):
        assert copy.deepcopy(module)._record == module._record
        assert pickle.loads(pickle.dumps(module))._record == module._record


def test_compiled_module_keeps_working():
    assert torch.compile(Scale(2.0))._orig_mod._record["init_args"] == {"factor": 2.0}


def test_wrong_call_gets_its_message_from_the_constructor():
    with pytest.raises(TypeError, match="unexpected|positional"):
        Child(1, 2, 3)
    with pytest.raises(TypeError, match="abstract"):
        Abstract()


def test_no_live_object_is_kept():
    given = [1, [2]]
    noted = Wrapper(Scale(), layers=given)._record["init_args"]["layers"]
    given[1].append(3)
    assert noted == [1, [2]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3),
        (True, True),
        (None, None),
        ("x", "x"),
        (np.float32(1.5), 1.5),
        (np.int64(2), 2),
        ((1, [2.0, "a"]), [1, [2.0, "a"]]),
        ({"a": (1, 2)}, {"a": [1, 2]}),
        (Colour.RED, "RED"),
        (Options(depth=3), {"depth": 3, "names": ["a", "b"]}),
        (torch.optim.AdamW, "torch.optim.AdamW"),
        (
            functools.partial(torch.optim.AdamW, lr=0.1),
            {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.1}},
        ),
    ],
)
def test_to_spec(value, expected):
    assert to_spec(value) == expected


@pytest.mark.parametrize(
    "value", [lambda: 0, torch.ones(2), nn.Linear(1, 1), [torch.ones(1)], {"a": lambda: 0}, object()]
)
def test_what_cannot_be_written_is_missing(value):
    assert to_spec(value) is MISSING


def test_optimizer_of_the_command_line_is_written():
    # jsonargparse hands a class with arguments over as a partial of its own instantiator; if this fails after an
    # upgrade of jsonargparse, core.spec._partial_spec must learn the new form
    from collections.abc import Callable

    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--optimizer", type=Callable[[list], torch.optim.Optimizer])
    config = parser.parse_object({"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.25}}})
    spec = to_spec(parser.instantiate(config).optimizer)
    assert spec["class_path"] == "torch.optim.SGD"
    assert spec["init_args"]["lr"] == 0.25


def test_public_path_is_the_shortest_one():
    assert public_path(torch.optim.AdamW) == "torch.optim.AdamW"
    assert public_path(GIN) == "torch_geometric.nn.GIN"
    from graphseq.models.graph.classifier import GraphClassifier

    assert public_path(GraphClassifier) == "graphseq.models.GraphClassifier"
    with pytest.raises(ValueError, match="no importable name"):
        public_path(lambda: 0)


def test_record_costs_microseconds():
    # an upper bound with a wide margin, to notice an accidental deep copy of big arguments
    import time

    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(200):
            record(Scale, (1.0,), {"bias": True})
    assert (time.perf_counter() - start) / 200 < 5e-3
