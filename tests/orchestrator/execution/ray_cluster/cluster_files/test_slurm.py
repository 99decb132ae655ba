"""The script for SLURM: which of its jobs end, and which go back into the queue."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .....waiting import run_to_end, wait_for, wait_for_end
from .files import SLURM


def test_the_slurm_script_is_valid_bash() -> None:
    done = run_to_end(["bash", "-n", str(SLURM)])
    assert (done.returncode, done.stderr) == (0, "")


def test_shellcheck_finds_nothing_in_the_slurm_script() -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    done = run_to_end([shellcheck, str(SLURM)])
    assert (done.returncode, done.stdout) == (0, "")


def test_slurm_settings_stand_before_the_first_command() -> None:
    lines = SLURM.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    settings = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert settings
    assert max(settings) < first
    given = {lines[i] for i in settings}
    assert {"#SBATCH --requeue", "#SBATCH --signal=B:TERM@120", "#SBATCH --open-mode=append"} <= given


STAND_INS = {
    "srun": """while [[ "$1" == --* ]]; do shift; done
exec "$@" """,
    "scontrol": """if [[ "$1 $2" == "show hostnames" ]]; then printf '%s\\n' node1 node2
else echo "$*" >> scontrol.log; fi""",
    # A node joins once its `ray start` is on record; the process then stays, as with --block.
    "ray": """case "$1" in
get-auth-token) echo secret ;;
start) echo "$RAY_AUTH_MODE $*" >> started.log; echo $$ >> pids.log; exec sleep 600 ;;
status) awk '{print " 1 node_" NR}' started.log ;;
esac""",
    "specsweep": """if [[ "$1" == events ]]; then echo "$*" > asked.log; cat events.log; exit; fi
echo "$*" > specsweep.log
if [[ -n "${ENDS_WITH:-}" ]]; then exit "$ENDS_WITH"; fi
trap 'echo TERM >> signals.log; exit "$STOPS_WITH"' TERM
echo ready > ready.log
while :; do sleep 0.05; done""",
}


@pytest.fixture
def start_job(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the script in ``tmp_path`` as SLURM would, with stand-ins for all that it calls."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, body in STAND_INS.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (programs / name).chmod(stat.S_IRWXU)
    jobs: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **variables: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "HEAD_IP": "192.0.2.1",
            "SWEEP": "a sweep.yaml",
            "RESULTS": "results",
        }
        job = subprocess.Popen(
            ["bash", str(SLURM), *arguments],
            cwd=tmp_path,
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        jobs.append(job)
        return job

    yield start
    for job in jobs:
        job.kill()
        job.communicate()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def still_running(folder: Path) -> list[int]:
    return [pid for pid in map(int, (folder / "pids.log").read_text().split()) if is_alive(pid)]


def write_events(folder: Path, *events: tuple[str, str, str | None]) -> None:
    """Write events as ``specsweep events`` prints them: trial, kind and cause."""
    (folder / "results").mkdir(exist_ok=True)
    lines = [json.dumps({"trial_id": trial, "kind": kind, "cause": cause}) for trial, kind, cause in events]
    lines.insert(0, json.dumps({"trial_id": None, "kind": "registered"}))
    (folder / "events.log").write_text("\n".join(lines) + "\n")


OWN_FAULT = [("a", "failed", "worker"), ("a", "done", None), ("b", "failed", "node"), ("b", "failed", "diverged")]


@pytest.mark.parametrize("code", [0, pytest.param(1, marks=pytest.mark.long), pytest.param(2, marks=pytest.mark.long)])
def test_a_slurm_job_whose_sweep_ends_by_itself_ends_with_its_code(
    code: int, start_job: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    write_events(tmp_path, *OWN_FAULT)
    job = start_job("--set", "resources.gpus=1", ENDS_WITH=str(code))
    _, err = wait_for_end(job)
    assert (job.returncode, err) == (code, "")
    assert (tmp_path / "specsweep.log").read_text() == (
        "run a sweep.yaml --address 192.0.2.1:20007 --results results --set resources.gpus=1\n"
    )
    started = sorted((tmp_path / "started.log").read_text().splitlines())
    assert len(started) == 2
    assert all(line.startswith("token start ") and line.endswith("--block") for line in started)
    assert "--address=192.0.2.1:20007" in started[0]
    assert "--head --node-ip-address=192.0.2.1 --port=20007" in started[1]
    assert not (tmp_path / "scontrol.log").exists()
    assert still_running(tmp_path) == []


def ports_of(line: str) -> dict[str, int]:
    return {name: int(port) for name, port in re.findall(r"--([a-z-]*port)=(\d+)", line)}


@pytest.mark.long
def test_no_node_of_a_slurm_job_takes_a_port_that_another_ray_of_its_machine_has(
    start_job: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    heads = []
    for number in ("7", "4123456"):
        wait_for_end(start_job(ENDS_WITH="0", SLURM_JOB_ID=number))
        worker, head = sorted((tmp_path / "started.log").read_text().splitlines())
        assert ports_of(worker) == {"dashboard-agent-listen-port": 0}
        heads.append(ports_of(head))
        (tmp_path / "started.log").unlink()
    assert heads[0] == {
        "port": 20007,
        "dashboard-port": 30007,
        "ray-client-server-port": 31007,
        "dashboard-agent-listen-port": 0,
    }
    chosen = [port for head in heads for port in head.values() if port]
    assert len(set(chosen)) == 6
    # Neither Ray's own, nor those of its workers (up to 19999), nor those that Linux gives to clients.
    assert all(20000 <= port < 32768 for port in chosen)


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        pytest.param(3, "raised", marks=pytest.mark.long),
        pytest.param(4, "raised", marks=pytest.mark.long),
        pytest.param(1, "worker", marks=pytest.mark.long),
        pytest.param(1, "io", marks=pytest.mark.long),
    ],
)
def test_a_slurm_job_that_another_try_may_mend_goes_back_into_the_queue_so_often_and_no_oftener(
    code: int, cause: str, start_job: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    write_events(tmp_path, *OWN_FAULT, ("c", "failed", cause))
    arguments = ("--set", "resources.gpus=1", "--slots", "4", "--name", "night")
    for number in range(1, 4):
        job = start_job(*arguments, ENDS_WITH=str(code), MAX_TRIES="2")
        out, err = wait_for_end(job)
        assert (job.returncode, err) == (code, "")
        requeued = (tmp_path / "scontrol.log").read_text().splitlines()
        assert requeued == ["requeue 7"] * min(number, 2)
        assert (f"which another try may mend; back into the queue ({number} of 2)" in out) is (number < 3)
        (tmp_path / "started.log").unlink()
    assert list((tmp_path / "results").iterdir()) == []
    if code == 1:
        assert (tmp_path / "asked.log").read_text() == "events night --results results --set resources.gpus=1\n"


@pytest.mark.long
def test_a_slurm_job_near_its_time_limit_stops_the_sweep_once_and_goes_back_into_the_queue(
    start_job: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    job = start_job(STOPS_WITH="130")
    wait_for((tmp_path / "ready.log").exists)
    job.send_signal(signal.SIGTERM)
    _, err = wait_for_end(job)
    assert (job.returncode, err) == (130, "")
    assert (tmp_path / "signals.log").read_text() == "TERM\n"
    assert (tmp_path / "scontrol.log").read_text() == "requeue 7\n"
    assert still_running(tmp_path) == []


@pytest.mark.parametrize("code", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_sweep_that_ends_while_it_is_stopped_does_not_requeue_its_slurm_job(
    code: int, start_job: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    job = start_job(STOPS_WITH=str(code))
    wait_for((tmp_path / "ready.log").exists)
    job.send_signal(signal.SIGTERM)
    wait_for_end(job)
    assert job.returncode == code
    assert (tmp_path / "signals.log").read_text() == "TERM\n"
    assert not (tmp_path / "scontrol.log").exists()


@pytest.mark.long
def test_a_slurm_job_whose_nodes_do_not_join_ends_and_leaves_nothing(
    start_job: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    (tmp_path / "programs" / "srun").write_text("#!/usr/bin/env bash\necho $$ >> pids.log; exec sleep 600\n")
    job = start_job(JOIN_TIMEOUT_S="1")
    _, err = wait_for_end(job)
    assert job.returncode == 1
    assert "0 of 2 nodes have joined Ray at 192.0.2.1:20007" in err
    assert not (tmp_path / "specsweep.log").exists()
    assert still_running(tmp_path) == []


@pytest.mark.parametrize("name", ["SWEEP", "RESULTS"])
def test_a_slurm_job_without_a_setting_says_which(
    name: str, start_job: Callable[..., subprocess.Popen[str]]
) -> None:
    job = start_job(**{name: ""})
    _, err = wait_for_end(job)
    assert job.returncode != 0
    assert f"{name}: set {name} to a " in err
