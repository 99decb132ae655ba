"""What the processes do that ``test_collectives`` starts: ``python distributed_worker.py COUNT FOLDER``.

Each writes what it saw to ``RANK.json`` and the weights of its runs to ``RANK.safetensors``. One imports everything and
forks the others, before anything is computed.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from cases import BFLOAT16_CPU, CASES, CPU, SHARED_CASES, Heard, learn, make_trial, measure, with_micro_batch
from safetensors.torch import save_file
from torch import Tensor, nn

from specvit.errors import ConfigError
from specvit.recipes.dinov2.losses import Centre, koleo_of_part, sinkhorn
from specvit.training import collectives as distributed
from specvit.training.checkpoint import Checkpoint
from specvit.trial import run_trial

TIMEOUT = datetime.timedelta(minutes=15)


def collectives(rank: int) -> dict[str, Any]:
    """Call each collective on values that differ between processes."""
    distributed.BUCKET_ELEMENTS, distributed.CHUNK_BYTES = 3, 5
    parameters = [nn.Parameter(torch.zeros(size)) for size in (2, 2, 3, 1, 5)]
    for number in ((0, 2, 4), (0, 1, 4))[rank]:  # number 3 has no gradient anywhere
        parameters[number].grad = torch.full_like(parameters[number], 10.0 ** rank * (number + 1))
    distributed.add_gradients(parameters)
    copied = [torch.full((2, 2), float(rank)).T, torch.tensor(rank)]
    distributed.copy_from_main(copied)
    refused = ""
    try:
        distributed.own_slice(7)
    except ConfigError as error:
        refused = str(error)
    own = distributed.own_slice(6)
    with distributed.alone():
        by_itself = [distributed.num_processes(), distributed.is_main(), float(distributed.total(torch.tensor(1.0)))]
    return {
        "alone": by_itself,
        "total": distributed.total(torch.tensor([1.0 + rank, 2.0])).tolist(),
        "largest": distributed.largest(torch.tensor([1 + rank, -rank])).tolist(),
        "gather": distributed.gather(torch.tensor([[rank, 10 + rank]]).T, dim=1).tolist(),
        "mean": _listed(distributed.mean_of_rows(torch.tensor(([1.0, 2.0], [8.0, 10.0])[rank]), num_rows=1 + rank)),
        "mean of one": _listed(distributed.mean_of_rows((1 - rank) * torch.tensor([4.0, 6.0]), num_rows=1 - rank)),
        "mean of none": _listed(distributed.mean_of_rows(torch.zeros(2), num_rows=0)),
        "gradients": [_listed(parameter.grad) for parameter in parameters],
        "union": [sorted(distributed.union(texts)) for texts in ((("b", "ä"), ("b", "c"))[rank], (), ("long" * rank,))],
        "everywhere": [distributed.everywhere(answer) for answer in (True, rank == 0, rank == 1, False)],
        "agree": [distributed.agree(rank == 0), distributed.agree(rank == 1)],
        "copied": [tensor.tolist() for tensor in copied],
        "bytes": [distributed.bytes_from_main(data).hex() for data in ((bytes(range(13)), b"")[rank], b"x" * rank)],
        "own": [own.start, own.stop],
        "refused": refused,
    }


def _listed(x: Tensor | None) -> list[float] | None:
    return None if x is None else x.tolist()


def losses_of_rows(rank: int, rows: Tensor) -> dict[str, Any]:
    """Compute what couples the rows ``(B, K)`` of a batch, of which each process has some."""
    own = rows[((0, 4), (4, 6))[rank][0] : ((0, 4), (4, 6))[rank][1]]
    all_or_none = rows[: len(rows) * (1 - rank)]
    centre = Centre(rows.shape[1])
    targets = []
    for x in (own, all_or_none, own):
        targets.append(centre(x, temperature=0.1).tolist())
        centre.move(centre.sum_of(x), num_rows=len(x))
    features = rows[3 * rank : 3 * rank + 3].clone().requires_grad_()
    koleo = koleo_of_part(features, distributed.gather(features), slice(3 * rank, 3 * rank + 3))
    (0.5 * koleo).backward()
    assert features.grad is not None
    return {
        "sinkhorn": sinkhorn(own, temperature=0.5).tolist(),
        "sinkhorn of one": sinkhorn(all_or_none, temperature=0.5).tolist(),
        "targets": targets,
        "centre": centre.centre.tolist(),
        "koleo": float(koleo),
        "koleo gradient": features.grad.tolist(),
    }


def trial(folder: Path) -> list[Any]:
    """Run a trial that is stopped after its second rung, and go on with it."""
    config, dataset = make_trial()
    told = []
    for stop_after in (2, None):
        heard = Heard(stop_after)
        checkpoint = Checkpoint(folder / "trial", identity="trial", every_s=None, every_steps=1)
        result = run_trial(config, dataset, heard, device=CPU, checkpoint=checkpoint)
        told.append([heard.rungs, dict(result.metrics), result.stopped_at])
    return told


def measured(rank: int) -> dict[str, Any]:
    """Measure learners whose targets couple images, in the main process alone: no other takes part."""
    return {name: measure(CASES[name]) for name in ("dinov2 centre", "dinov2 sinkhorn")} if rank == 0 else {}


def main(rank: int, count: int, folder: Path) -> None:
    """Join the processes and do all of the above."""
    torch.set_num_threads(1)
    torch.manual_seed(rank)  # nothing may depend on where the global generator stands
    dist.init_process_group("gloo", f"file://{folder / 'store'}", rank=rank, world_size=count, timeout=TIMEOUT)
    rows = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    report: dict[str, Any] = {"losses of rows": losses_of_rows(rank, rows), "losses": {}}
    weights = {}
    for name in SHARED_CASES:
        case = CASES[name]
        report["losses"][name], of_case = learn(case)
        weights |= {f"{name}/{key}": value.clone() for key, value in of_case.items()}
        if name.startswith("dinov2"):
            report["losses"][f"{name} in parts"] = learn(with_micro_batch(case, 3))[0]
    report["in bfloat16"] = {
        f"{name} in parts of {size}": learn(with_micro_batch(CASES[name], size), stop_after=1, device=BFLOAT16_CPU)[0]
        for name in SHARED_CASES
        for size in (3, 4)
    }
    checkpoint = Checkpoint(folder / "state", identity="run", every_s=None, every_steps=2)
    stopped, _ = learn(CASES["dinov2 centre"], stop_after=3, checkpoint=checkpoint)
    report["continued"] = [stopped, learn(CASES["dinov2 centre"], checkpoint=checkpoint)[0]]
    for name, refusing in (("main", 0), ("other", 1)):
        identity = "another run" if rank == refusing else "run"
        checkpoint = Checkpoint(folder / "state", identity=identity, every_s=None, notes={"own": 1})
        anew, of_run = learn(CASES["dinov2 centre"], checkpoint=checkpoint)
        report[f"refused by {name}"] = [anew, checkpoint.notes]
        weights |= {f"refused by {name}/{key}": value.clone() for key, value in of_run.items()}
    report["trial"] = trial(folder)
    report["measured"] = measured(rank)
    report["collectives"] = collectives(rank)
    save_file(weights, folder / f"{rank}.safetensors")
    (folder / f"{rank}.json").write_text(json.dumps(report))
    dist.destroy_process_group()


def start(count: int, folder: Path) -> int:
    """Be all processes; return 0 if each has come to its end."""
    children = []
    for rank in range(1, count):
        if (pid := os.fork()) == 0:
            main(rank, count, folder)
            return 0
        children.append(pid)
    main(0, count, folder)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)


if __name__ == "__main__":
    sys.exit(start(int(sys.argv[1]), Path(sys.argv[2])))
