"""How objects were built, batch types, errors and random generators: what every other room may use."""

from typing import TYPE_CHECKING

from graphseq.core.lazy import attach

if TYPE_CHECKING:
    from graphseq.core.batches import apply_model as apply_model
    from graphseq.core.batches import batch_size as batch_size
    from graphseq.core.batches import batch_target as batch_target
    from graphseq.core.batches import model_fields as model_fields
    from graphseq.core.errors import CheckpointError as CheckpointError
    from graphseq.core.errors import DataError as DataError
    from graphseq.core.errors import OptionalDependencyError as OptionalDependencyError
    from graphseq.core.errors import UnsupportedStrategyError as UnsupportedStrategyError
    from graphseq.core.events import EventBatch as EventBatch
    from graphseq.core.events import EventHistory as EventHistory
    from graphseq.core.events import Neighbors as Neighbors
    from graphseq.core.random import capture_generators as capture_generators
    from graphseq.core.random import restore_generators as restore_generators
    from graphseq.core.spec import MISSING as MISSING
    from graphseq.core.spec import Recorded as Recorded
    from graphseq.core.spec import make as make
    from graphseq.core.spec import public_path as public_path
    from graphseq.core.spec import record as record
    from graphseq.core.spec import record_foreign_modules as record_foreign_modules
    from graphseq.core.spec import to_spec as to_spec

_FILES: dict[str, str] = {
    "CheckpointError": "errors",
    "DataError": "errors",
    "EventBatch": "events",
    "EventHistory": "events",
    "MISSING": "spec",
    "Neighbors": "events",
    "OptionalDependencyError": "errors",
    "Recorded": "spec",
    "UnsupportedStrategyError": "errors",
    "apply_model": "batches",
    "batch_size": "batches",
    "batch_target": "batches",
    "capture_generators": "random",
    "make": "spec",
    "model_fields": "batches",
    "public_path": "spec",
    "record": "spec",
    "record_foreign_modules": "spec",
    "restore_generators": "random",
    "to_spec": "spec",
}
__getattr__, __dir__, __all__ = attach(__name__, _FILES)
