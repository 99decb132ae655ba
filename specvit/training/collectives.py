"""The processes that train one trial together: every collective of the project, and nothing where there is one.

Who starts the processes joins them (``specvit.training.process_group``: gloo on CPUs, NCCL on GPUs)
before ``run_trial``; all of them run the same trial on the same data. Each draws what the whole batch sees, as a single
process does, and computes its own images of it: the result is that of one process, up to rounding.

Gradients are added up after the backward pass, without torch's DistributedDataParallel: that one expects a single
forward pass a step through one module, while a learner runs its student several times, on views of several sizes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from specvit.errors import ConfigError

BUCKET_ELEMENTS = 2**24
"""Gradients that go into one message, about; 64 MiB of float32."""

CHUNK_BYTES = 2**26
"""Bytes that go into one message, at most."""

_NO_TEXTS = b"[]"

_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Let this process compute whole batches by itself, as if no others were joined, until the context ends."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def num_processes() -> int:
    """Return how many processes train the trial; 1 where none were joined, and in ``alone``."""
    if _ALONE.get():
        return 1
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if num_processes() > 1 else 0


def is_main() -> bool:
    """Return whether this is the process that reports, probes and saves."""
    return rank() == 0


def own_slice(batch_size: int) -> slice:
    """Return which images of every batch are this process's.

    Raises:
        ConfigError: If the images cannot be shared out equally.
    """
    count = num_processes()
    if batch_size % count:
        raise ConfigError(f"batch_size must be a multiple of the {count} processes, not {batch_size}")
    size = batch_size // count
    return slice(rank() * size, (rank() + 1) * size)


def total(x: Tensor) -> Tensor:
    """Return the sum of ``x`` over processes, the same in each, without gradients; ``x`` itself if there is one."""
    return x if num_processes() == 1 else _reduced(x, dist.ReduceOp.SUM)


def largest(x: Tensor) -> Tensor:
    """Return the largest of ``x`` over processes, element by element; ``x`` itself if there is one process."""
    return x if num_processes() == 1 else _reduced(x, dist.ReduceOp.MAX)


def gather(x: Tensor, *, dim: int = 0) -> Tensor:
    """Return the ``x`` of all processes, of one shape, in the order of processes along ``dim``; no gradients."""
    if num_processes() == 1:
        return x
    x = x.detach().contiguous()
    parts = [torch.empty_like(x) for _ in range(num_processes())]
    dist.all_gather(parts, x)
    return torch.cat(parts, dim=dim)


def mean_of_rows(summed: Tensor, *, num_rows: int) -> Tensor | None:
    """Return the mean ``(K,)`` over the rows of all processes; None if there are none at all.

    Args:
        summed: ``(K,)`` float32, the sum of this process's rows.
        num_rows: How many these are.
    """
    if num_processes() == 1:
        return summed / num_rows if num_rows else None
    of_all = total(torch.cat([summed, summed.new_tensor([num_rows])]))
    return of_all[:-1] / of_all[-1] if of_all[-1] > 0 else None


def add_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Write the sum over processes into every ``grad``; what has no gradient in any process is left without one."""
    if num_processes() == 1 or not parameters:
        return
    present = [parameter.grad is not None for parameter in parameters]
    anywhere = largest(torch.tensor(present, dtype=torch.int32, device=_message_device())).tolist()
    gradients = []
    for parameter, needed in zip(parameters, anywhere, strict=True):
        if needed and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if parameter.grad is not None:
            gradients.append(parameter.grad)
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        for gradient, summed in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
            gradient.copy_(summed.view_as(gradient))


def agree(answer: bool) -> bool:
    """Return the main process's answer; what the others say does not matter."""
    if num_processes() == 1:
        return answer
    told = torch.tensor([int(answer)], dtype=torch.int32, device=_message_device())
    dist.broadcast(told, src=0)
    return bool(told.item())


def everywhere(answer: bool) -> bool:
    """Return whether all processes say yes."""
    if num_processes() == 1:
        return answer
    refused = torch.tensor([int(not answer)], dtype=torch.int32, device=_message_device())
    return not total(refused).item()


def copy_from_main(tensors: Iterable[Tensor]) -> None:
    """Overwrite the tensors by those of the main process, in place."""
    if num_processes() == 1:
        return
    with torch.no_grad():
        for tensor in tensors:
            sent = tensor.detach().contiguous()
            dist.broadcast(sent, src=0)
            tensor.copy_(sent)


def bytes_from_main(data: bytes) -> bytes:
    """Return the bytes that the main process gave; what the others give does not matter."""
    if num_processes() == 1:
        return data
    device = _message_device()
    length = torch.tensor([len(data)], dtype=torch.int64, device=device)
    dist.broadcast(length, src=0)
    received = bytearray(data if is_main() else int(length.item()))
    for start in range(0, len(received), CHUNK_BYTES):
        chunk = torch.frombuffer(received[start : start + CHUNK_BYTES], dtype=torch.uint8).to(device)
        dist.broadcast(chunk, src=0)
        received[start : start + CHUNK_BYTES] = chunk.cpu().numpy().tobytes()
    return bytes(received)


def union(own: Collection[str]) -> set[str]:
    """Return the texts that any process gives."""
    if num_processes() == 1:
        return set(own)
    device, data = _message_device(), json.dumps(sorted(own)).encode()
    size = int(largest(torch.tensor([len(data)], device=device)))
    if size == len(_NO_TEXTS):
        return set()
    padded = torch.frombuffer(bytearray(data.ljust(size)), dtype=torch.uint8).to(device)
    return {text for row in gather(padded.unsqueeze(0)).cpu().numpy() for text in json.loads(row.tobytes())}


def _reduced(x: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
    reduced = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(reduced, op=operation)
    return reduced


def _message_device() -> torch.device:
    """Return where small messages have to lie: NCCL sends from GPUs only."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


def _buckets(tensors: Sequence[Tensor]) -> Iterable[list[Tensor]]:
    """Group tensors of one type, in their order, up to ``BUCKET_ELEMENTS`` or a single larger one."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and (tensor.dtype != bucket[0].dtype or size + tensor.numel() > BUCKET_ELEMENTS):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel()
    if bucket:
        yield bucket
