"""A device that is pretended: tensors on it compute on the CPU, and refuse what lies elsewhere, as a GPU's do.

torch's fake tensors find the same mismatches on a fake CUDA device, but without CUDA they have no backward pass (the
engine asks for the device's context), and without values no step ends: losses are looked at, and masks choose rows.
Here tensors hold values, so that whole steps, probes and trials run, and give the numbers of a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

from specvit.device import Device

PRETENDED = torch.device("lazy")
"""A kind of device that torch knows and this project does not use; tensors on it can have gradients anywhere."""


class _There(Tensor):
    """A tensor on the pretended device, which holds one on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> _There:
        made: _There = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=PRETENDED,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Pretending(TorchDispatchMode):
    """Let what is made on the pretended device, or moved there, be a ``_There``."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


_INDEXING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default)
"""What takes indices on the CPU for a tensor on any device."""


class _MovingNumbers(TorchFunctionMode):
    """Let tensors of Python's numbers be made on the CPU and moved: torch makes them where no dispatch sees it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.tolist:  # of another class torch refuses it
            return _held(args[0]).tolist()
        if func is Tensor.__getitem__ and isinstance(args[1], list):
            return func(args[0], torch.tensor(args[1]))
        if func is Tensor.new_tensor:
            kwargs = {"device": args[0].device, "dtype": args[0].dtype} | kwargs
            func, args = torch.tensor, args[1:]
        if func not in (torch.tensor, torch.as_tensor) or kwargs.get("device") is None:
            return func(*args, **kwargs)
        device = kwargs.pop("device")
        return func(*args, **kwargs).to(device)


def _compute(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU what is asked for on either device."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [isinstance(tensor, _There) for tensor in tensors]
    bound = tensors if func not in _INDEXING or not there[0] else [args[0], *args[2:3]]
    if func is torch.ops.aten.copy_.default:
        _held(args[0]).copy_(_held(args[1]))
        return args[0]
    if any(there) and any(tensor.ndim > 0 for tensor in bound if not isinstance(tensor, _There)):
        places = [f"{tuple(tensor.shape)} on {tensor.device.type}" for tensor in tensors]
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, but got {', '.join(places)}")
    asked = kwargs.get("device")
    computed = func(*tree_map_only(_There, _held, args), **tree_map_only(_There, _held, kwargs | _on_cpu(asked)))
    if not (any(there) if asked is None else torch.device(asked).type == PRETENDED.type):
        return computed
    computed = tree_map_only(Tensor, _There, computed)
    return return_and_correct_aliasing(func, args, kwargs, computed) if any(there) else computed


def _on_cpu(asked: Any) -> dict[str, Any]:
    return {} if asked is None else {"device": torch.device("cpu")}


def _held(tensor: Tensor) -> Tensor:
    return tensor.held if isinstance(tensor, _There) else tensor


@contextmanager
def pretended_device() -> Iterator[Device]:
    """Pretend that there is such a device, until the context ends.

    ``torch.inference_mode`` is ``no_grad`` there: views of tensors that are not its own cannot be wrapped in it.
    """
    inference_mode = mock.patch("torch._C._InferenceMode", side_effect=lambda _: torch.no_grad())
    with inference_mode, _MovingNumbers(), _Pretending():
        yield Device(PRETENDED)
