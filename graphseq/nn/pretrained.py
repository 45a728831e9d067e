"""Pretrained parts of networks, loaded from a file and frozen or fine-tuned."""

import difflib
import hashlib
import os
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from graphseq.core.errors import CheckpointError, constructor_message
from graphseq.core.spec import Recorded, import_path

__all__ = ["Pretrained"]


class Pretrained(Recorded, nn.Module):
    """Pretrained part of a network, given by the path of its checkpoint in place of a module.

    The part is built and filled from a checkpoint of graphseq (script or command line), or from a file that
    ``torch.save`` wrote of a ``state_dict``, for which ``module`` gives the part to fill. Files are read with
    ``weights_only=True``. Calls and attributes are forwarded to the part, which is also the attribute ``module``.

    A frozen part stays in evaluation mode: its parameters get no gradient, its buffers (statistics of batch norm) are
    bit for bit those of the file, and dropout is off; gradients pass through it to earlier layers. Checkpoints hold a
    digest in place of its weights, so that a file which has changed since is refused. The weights of a fine-tuned part
    are in checkpoints, which do not need the file if the class of the part is one of graphseq or was built by
    :func:`graphseq.core.make`.

    Args:
        path: path of a checkpoint, or of a file with a ``state_dict``.
        part: dotted name of the part in the task (``"model.encoder"``), or prefix of its keys in a ``state_dict``
            (``""`` for all of them).
        freeze: whether the part is frozen.
        save: whether checkpoints also hold the weights of a frozen part, so that they can be loaded without the file.
        module: part with any weights, into which those of a ``state_dict`` are loaded; None for a checkpoint of
            graphseq, which records how to build it.

    Raises:
        FileNotFoundError: if there is no such file, and no ``module`` into which a checkpoint could be loaded.
        CheckpointError: if the file cannot be read, has no such part, or its weights do not fit; the message names the
            keys.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "weights.pt"
        >>> torch.save(nn.Linear(3, 2).state_dict(), file)
        >>> encoder = Pretrained(file, part="", module=nn.Linear(3, 2))
        >>> encoder(torch.ones(1, 3)).shape, encoder.out_features, any(p.requires_grad for p in encoder.parameters())
        (torch.Size([1, 2]), 2, False)
        >>> list(encoder.state_dict())
        ['_extra_state']
    """

    module: nn.Module

    def __init__(
        self,
        path: str | os.PathLike[str],
        part: str = "model",
        freeze: bool = True,
        save: bool = False,
        module: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.path, self.part, self.freeze, self.saved = os.fspath(path), part, freeze, save or not freeze
        self._waits = False  # for weights that a checkpoint has to bring
        if Path(path).is_file():
            self.module = _read(Path(path), part, module)
        elif module is not None and self.saved:
            self.module, self._waits = module, True
        else:
            raise FileNotFoundError(
                f"there is no file {os.fspath(path)} with pre-trained weights of {part or 'a network'}; "
                f"{_how_to_make(Path(path))}give the path of a checkpoint or of a saved state_dict"
            )
        self._digest = _digest(self.module)
        if freeze:
            self.module.requires_grad_(False)
            self.module.eval()
        if not self.saved:
            self._register_state_dict_hook(_leave_out)
        elif self._record is not None and (noted := vars(self.module).get("_record")) is not None:
            self._record["init_args"]["module"] = noted  # checkpoints that hold the weights can do without the file

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output of the part."""
        if self._waits:
            raise CheckpointError(
                f"there is no file {self.path} and no checkpoint was loaded: the weights of {self.part} are missing"
            )
        return self.module(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or "module" not in self.__dict__.get("_modules", {}):
                raise
            return getattr(self.module, name)

    def train(self, mode: bool = True) -> Self:
        """Change the mode of a part that is fine-tuned; a frozen part stays in evaluation mode.

        Args:
            mode: whether to train.
        """
        self.training = mode
        self.module.train(mode and not self.freeze)
        return self

    def get_extra_state(self) -> dict[str, str]:
        """Return the digest of the frozen weights, which are in the file and not in the checkpoint."""
        return {} if self.saved else {"digest": self._digest}

    def set_extra_state(self, state: dict[str, str]) -> None:
        """Check that the file holds the weights that the checkpoint was trained with.

        Args:
            state: digest that :meth:`get_extra_state` returned.

        Raises:
            CheckpointError: if the weights differ.
        """
        if state.get("digest", self._digest) != self._digest:
            raise CheckpointError(
                f"{self.path} holds other weights of {self.part} than those that the checkpoint was trained with; "
                "put the former file there, or build the network with the path of a copy of it"
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if self.saved:
            self._waits = self._waits and not any(name.startswith(f"{prefix}module.") for name in state_dict)
            return
        for name, value in self.module.state_dict().items():  # what was left out is what is there
            state_dict.setdefault(f"{prefix}module.{name}", value)


def _how_to_make(path: Path) -> str:
    """Return the command that writes a checkpoint of the command line, by the folder of its run; else nothing."""
    match path.parts:
        case (*_, name, version, "checkpoints", _) if version.startswith("version_"):
            return f"train it in this folder by `graphseq fit --config` with the config {name}.yaml, or "
    return ""


def _leave_out(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}module.")]:
        del state[name]


def _read(path: Path, part: str, module: nn.Module | None) -> nn.Module:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(f"{path} cannot be read as weights: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; it must be a checkpoint or a state_dict")
    saved = content.get("hyper_parameters", {})
    if module is None and isinstance(saved, dict) and "_class_path" in saved:
        return _of_task(path, part, saved["_class_path"])
    if module is None:
        raise CheckpointError(
            f"{path} does not say how its network is built; give module, the part that its weights fill"
        )
    weights = content.get("state_dict", content)
    prefix = f"{part}." if part else ""
    found = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    _fill(module, found, path, part)
    return module


def _of_task(path: Path, part: str, class_path: str) -> nn.Module:
    """Build the task that a checkpoint names and return its part."""
    try:
        task: nn.Module = import_path(class_path).load_from_checkpoint(path, map_location="cpu")
    except CheckpointError:
        raise
    except Exception as error:  # constructors raise many kinds
        reason = constructor_message(error)
        raise CheckpointError(f"the {class_path} in {path} could not be built again: {reason}") from error
    names = [name for name, _ in task.named_modules() if name]
    if part not in names:
        close = difflib.get_close_matches(part, names, 4) or [name for name in names if name.count(".") < 2][:8]
        raise CheckpointError(f"the {class_path} in {path} has no part {part!r}; it has {', '.join(close)}")
    return task.get_submodule(part)


def _fill(module: nn.Module, weights: dict[str, Any], path: Path, part: str) -> None:
    own = module.state_dict()
    wrong = [
        f"{name} is {_shape(weights.get(name))} there and {_shape(own.get(name))} here"
        for name in sorted(own.keys() | weights.keys())
        if _shape(weights.get(name)) != _shape(own.get(name))
    ]
    if wrong:
        more = f", and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        where = f"{part} of {path}" if part else str(path)
        raise CheckpointError(f"{where} does not fit a {type(module).__name__}: {'; '.join(wrong[:4])}{more}")
    module.load_state_dict(weights)


def _shape(value: Any) -> str:
    if value is None:
        return "absent"
    return str(tuple(value.shape)) if isinstance(value, Tensor) else "an object"


def _digest(module: nn.Module) -> str:
    """A digest of names, types, shapes and bytes of all weights and buffers in checkpoints."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            digest.update(f"{plain.dtype} {tuple(plain.shape)}".encode())
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
