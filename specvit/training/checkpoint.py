"""The state of a training run in a file, from which it continues bit for bit on the same machine.

One safetensors file: the learner's parameters and buffers (teacher and centres included), the optimizer's tensors by
the name of their parameter, and as JSON in the metadata the step, the optimizer's numbers and what the caller notes.
Random numbers and the order of images follow from the step alone, so they need no keeping. The file is there whole or
not at all, carries a hash of all it holds, and names the trial: one that is damaged or another's is refused.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from specvit.errors import ConfigError, DataError, SpecsweepError
from specvit.files.regular import read_regular
from specvit.files.tensors import write_tensors
from specvit.training import collectives

VERSION = 1
"""Of the file's layout; raised by a change of it, so that older files are refused."""

METADATA_KEY = "specvit_training_state"

MAX_SHARE = 0.01
"""Share of a run's time that the saving of its states takes at most, unless something else is asked for."""

_LENGTH_BYTES = 8
"""A safetensors file opens with the length of its JSON header."""

_KINDS: Mapping[str, type] = MappingProxyType(
    {
        "version": int,
        "identity": str,
        "step": int,
        "loss": float,
        "micro_batch": int,
        "numbers": dict,
        "notes": dict,
        "sha256": str,
    }
)
"""What the JSON in a file's metadata holds."""


@dataclass
class Checkpoint:
    """Where a run keeps its state, and how often.

    Attributes:
        path: The file; its folder is made, but not that folder's parent, so that nothing is saved where a shared
            folder is missing. Whoever gave it deletes it when the result is safe.
        identity: What tells this trial from all others; a file of another identity is refused.
        every_s: Least seconds of wall time between two times of saving; None = not by time.
        every_steps: Steps between two times of saving, whatever that costs; None = not by steps.
        max_share: Share of the run's time that saving by time may take; 1 = any. See ``state_writer``.
        at_stop: Asked when the run is ordered to stop: whether it is to resume one day, so that its state is saved
            first. A run that is given up needs none.
        after_save: Called with ``path`` whenever the state was saved, in the thread that saved it, of the main process.
            The next state waits for it, and it must not raise.
        notes: JSON values that the caller wants kept along; filled from the file where a run continues.
    """

    path: Path
    identity: str
    every_s: float | None = 60.0
    every_steps: int | None = None
    max_share: float = MAX_SHARE
    at_stop: Callable[[], bool] = lambda: False
    after_save: Callable[[Path], None] = lambda _: None
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check how often to save.

        Raises:
            ConfigError: If an interval is not above 0, or the share not in (0, 1].
        """
        for name in ("every_s", "every_steps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be above 0, not {value}")
        if not 0 < self.max_share <= 1:
            raise ConfigError(f"max_share must be above 0 and at most 1, not {self.max_share}")


@dataclass(frozen=True)
class SavedStep:
    """Where a run stands.

    Attributes:
        step: Steps done.
        loss: Of the last one.
        micro_batch: Images that are computed at once, as far as memory went.
    """

    step: int
    loss: float
    micro_batch: int


@dataclass(frozen=True)
class StateCopy:
    """A run's state in memory of its own, which stays as it is while the training goes on.

    Attributes:
        content: What a file says of itself, without its hash.
        tensors: By name, on the CPU; no two share memory.
    """

    content: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def copy_state(
    checkpoint: Checkpoint, learner: nn.Module, optimizer: torch.optim.Optimizer, stands: SavedStep
) -> StateCopy:
    """Return a copy of a run's state in host memory.

    Args:
        checkpoint: Of which trial, with which notes.
        learner: What is trained.
        optimizer: Any whose state is tensors and numbers.
        stands: Where the run stands.
    """
    tensors, numbers = _state_values(learner, optimizer)
    content = {
        "version": VERSION,
        "identity": checkpoint.identity,
        **dataclasses.asdict(stands),
        "numbers": numbers,
        "notes": copy.deepcopy(checkpoint.notes),
    }
    return StateCopy(
        content, {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    )


def state_bytes(learner: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Return how many bytes the tensors of a run's state have."""
    return sum(value.nbytes for value in _state_values(learner, optimizer)[0].values())


def write_state(checkpoint: Checkpoint, state: StateCopy) -> None:
    """Write a run's state; the file of before stays until the new one is complete.

    Args:
        checkpoint: Where, and who is told.
        state: What is written.

    Raises:
        SpecsweepError: If the file cannot be written.
    """
    text = json.dumps({**state.content, "sha256": _digest(state.content, state.tensors)})
    try:
        checkpoint.path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise SpecsweepError(f"{checkpoint.path.parent}: cannot be made ({error})") from error
    write_tensors(checkpoint.path, state.tensors, metadata={METADATA_KEY: text})
    checkpoint.after_save(checkpoint.path)


def read_state(path: Path) -> bytes:
    """Return the content of a state's file for ``load_state``; empty if there is no such file.

    Raises:
        DataError: If the file cannot be read, or is itself empty.
    """
    try:
        data = read_regular(path)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a training state ({error})") from error
    if not data:
        raise DataError(f"{path}: is no training state, but an empty file")
    return data


def load_state(
    data: bytes, checkpoint: Checkpoint, learner: nn.Module, optimizer: torch.optim.Optimizer
) -> SavedStep:
    """Bring a newly made learner and optimizer to where a saved run stood; untouched if that is not possible.

    Where several processes train the trial, all call this, and either all of them resume from the state or none does.

    Args:
        data: What ``read_state`` returned, not empty, the same in all processes.
        checkpoint: Whose path and identity the file must have; its notes become those of the file.
        learner: Built as that of the run was.
        optimizer: Likewise.

    Raises:
        DataError: If the data are cut off or damaged, or of another version, trial or learner; or if they are so for
            another process.
    """
    path = checkpoint.path
    try:
        content, saved, state = _check(data, checkpoint, learner, optimizer)
    except DataError:
        collectives.everywhere(False)
        raise
    if not collectives.everywhere(True):
        raise DataError(f"{path}: is a training state that another process cannot use")
    optimizer.load_state_dict(state)
    current = _learner_tensors(learner)
    with torch.no_grad():
        for name, value in saved.items():
            current[name].copy_(value)
    checkpoint.notes.clear()
    checkpoint.notes.update(content["notes"])
    return SavedStep(content["step"], content["loss"], content["micro_batch"])


def _check(
    data: bytes, checkpoint: Checkpoint, learner: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """Return a file's content, the learner's tensors and the optimizer's state, once it is sure that they fit."""
    path = checkpoint.path
    content, tensors = _parse(data, path)
    if content["identity"] != checkpoint.identity:
        raise DataError(f"{path}: is the training state of another trial, or of the trial on other software or data")
    current = _learner_tensors(learner)
    saved = _under("learner.", tensors)
    if {n: (v.shape, v.dtype) for n, v in saved.items()} != {n: (v.shape, v.dtype) for n, v in current.items()}:
        raise DataError(f"{path}: holds other parameters than the learner's")
    values = {**_under("optimizer.", tensors), **_under("optimizer.", content["numbers"])}
    state = _optimizer_state(values, learner, optimizer, path=path)
    before = optimizer.state_dict()
    try:
        optimizer.load_state_dict(state)  # a trial: only the optimizer itself knows what it takes
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: holds the state of another optimizer ({error})") from error
    finally:
        optimizer.load_state_dict(before)
    return content, saved, state


def _parse(data: bytes, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file's content and tensors, and check that they are whole."""
    try:
        tensors = load(data)
        length = int.from_bytes(data[:_LENGTH_BYTES], "little")
        header = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
        content = json.loads(header["__metadata__"][METADATA_KEY])
        version = content["version"]
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: is no training state, or a damaged one ({type(error).__name__}: {error})") from error
    if version != VERSION:
        raise DataError(f"{path}: is a training state of version {version}, not {VERSION}")
    if content.keys() != _KINDS.keys() or any(not isinstance(content[key], kind) for key, kind in _KINDS.items()):
        raise DataError(f"{path}: is no training state: it lacks a part of what one says")
    if content.pop("sha256") != _digest(content, tensors):
        raise DataError(f"{path}: is damaged: its content does not have the hash that it states")
    return content, tensors


def _digest(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over everything that a file holds."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _state_values(
    learner: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a state, as they are, and its numbers."""
    tensors = {f"learner.{name}": value for name, value in _learner_tensors(learner).items()}
    numbers: dict[str, Any] = {}
    for name, value in _optimizer_values(learner, optimizer).items():
        (tensors if isinstance(value, Tensor) else numbers)[f"optimizer.{name}"] = value
    return tensors, numbers


def _learner_tensors(learner: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, also those that ``state_dict`` leaves out; a shared one once."""
    return {**dict(learner.named_parameters()), **dict(learner.named_buffers())}


def _optimizer_values(learner: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the optimizer's tensors and numbers, as ``state.KEY.PARAMETER`` and ``group.NUMBER.KEY``."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in learner.named_parameters()}
    values: dict[str, Any] = {}
    for parameter, entries in optimizer.state.items():
        values |= {f"state.{key}.{names[parameter]}": value for key, value in entries.items() if _is_kept(value)}
    for number, group in enumerate(optimizer.param_groups):
        values |= {f"group.{number}.{key}": value for key, value in group.items() if _is_kept(value)}
    return values


def _is_kept(value: object) -> bool:
    """Return whether an optimizer's value can change; its lists and texts are settings."""
    return isinstance(value, Tensor | int | float)


def _optimizer_state(
    values: Mapping[str, Any], learner: nn.Module, optimizer: torch.optim.Optimizer, *, path: Path
) -> dict[str, Any]:
    """Return the state dictionary of ``optimizer`` with saved values in it."""
    parameters = dict(learner.named_parameters())
    names = {parameter: name for name, parameter in parameters.items()}
    state = optimizer.state_dict()
    number_of = {
        names[parameter]: number
        for group, packed in zip(optimizer.param_groups, state["param_groups"], strict=True)
        for parameter, number in zip(group["params"], packed["params"], strict=True)
    }
    state["state"] = {}
    try:
        for full_name, saved in values.items():
            # Tensors lie in a file as they come, and kernels round differently off their memory's alignment.
            value = saved.clone() if isinstance(saved, Tensor) else saved
            kind, key, name = full_name.split(".", 2)
            if kind == "group":
                state["param_groups"][int(key)][name] = value
            else:
                if isinstance(value, Tensor) and value.shape not in {(), parameters[name].shape}:
                    raise ValueError(f"{key} of {name} has shape {tuple(value.shape)}")
                state["state"].setdefault(number_of[name], {})[key] = value
    except (KeyError, IndexError, ValueError) as error:
        raise DataError(f"{path}: holds the state of another optimizer ({error})") from error
    return state


def _under(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
