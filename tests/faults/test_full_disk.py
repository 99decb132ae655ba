"""A disk that fills up, or is read-only, while a sweep runs on it: a clear stop, and the same command goes on."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest

from orchestrator.cli.app import EXIT_STOPPED, main
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.provenance import collect_provenance
from orchestrator.run import describe
from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep

from ..measured_columns import MEASURED
from .harness.finished_sweeps import select
from .harness.mounts import run_with_mounts, why_no_mounts

PROGRAM = Path(sys.executable).with_name("specsweep")
SWEEP = {
    "question": "Does it go on?",
    "data": {"source": "scenes", "num_train": 32, "num_val": 16},
    "objective": {"recipe": "mae_cpu", "steps": 2, "batch_size": 4},
    "probes": {"knn": {}},
    "rungs": {"count": 1, "num_images": 16},
    "seeds": 3,
    "ablate": {"components": ["none", "norm"]},
    "floors": [],
    "diagnostics": True,
    "keep_weights": False,  # a file of them is larger than these disks
}
NUM_TRIALS = 6
"""Each of a fraction of a second; their readings fill a small disk."""

FILL_UP = """
program=$1 sweep=$2 results=$3 out=$4 size=$5
mount -t tmpfs -o size=$size none "$results"
set +e
"$program" run "$sweep" --executor local --results "$results" > "$out/first.out" 2> "$out/first.err"
echo $? > "$out/first.code"
mount -o remount,size=64m "$results"
"$program" status tiny --results "$results" > "$out/status.out" 2> "$out/status.err"
echo $? > "$out/status.code"
cp "$results/tiny/ledger.sqlite"* "$out"
"$program" run "$sweep" --executor local --results "$results" > "$out/second.out" 2> "$out/second.err"
echo $? > "$out/second.code"
cp "$results/tiny/table.csv" "$out"
"""

READ_ONLY = """
program=$1 sweep=$2 results=$3 out=$4 target=$5
set +e
mount --bind "$results/$target" "$results/$target"
mount -o remount,ro,bind "$results/$target"
"$program" run "$sweep" --executor local --results "$results" > "$out/first.out" 2> "$out/first.err"
echo $? > "$out/first.code"
"""

pytestmark = pytest.mark.skipif(bool(why_no_mounts()), reason=f"no file systems can be mounted: {why_no_mounts()}")


@dataclass(frozen=True)
class Place:
    """Hold the sweep file, the folder of results, and the folder for what commands print."""

    sweep: Path
    results: Path
    out: Path

    def read(self, name: str) -> str:
        return (self.out / name).read_text()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    sweep, results, out = tmp_path / "tiny.yaml", tmp_path / "results", tmp_path / "out"
    sweep.write_text(json.dumps(SWEEP))
    results.mkdir()
    out.mkdir()
    return Place(sweep, results, out)


@pytest.fixture(scope="module")
def whole_table(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.yaml").write_text(json.dumps(SWEEP))
    command = ["specsweep", "run", str(folder / "tiny.yaml"), "--executor", "local", "--results", str(folder)]
    with patch.object(sys, "argv", command), pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    return table(folder / "tiny" / "table.csv")


def table(path: Path) -> str:
    return pd.read_csv(path, dtype=str).drop(columns=MEASURED).to_csv()


# Where the disk is full before the first trial, after some, and with all of them when tables are written.
@pytest.mark.long
@pytest.mark.parametrize("size", ["128k", "512k", "1024k"])
def test_sweep_on_a_disk_that_fills_up_stops_clearly_and_goes_on_once_there_is_room(
    size: str, place: Place, whole_table: str
) -> None:
    done = run_with_mounts(FILL_UP, PROGRAM, place.sweep, place.results, place.out, size)
    assert done.returncode == 0, done.stderr
    assert place.read("first.code").strip() == str(EXIT_STOPPED), place.read("first.err")
    message = place.read("first.err")
    assert len([line for line in message.splitlines() if line.startswith("specsweep: ")]) == 1
    assert "Traceback" not in message + place.read("first.out")
    assert str(place.results / "tiny") in message
    assert "full" in message or "No space left" in message
    if size != "128k":  # which has no room for the ledger
        assert place.read("status.code").strip() == "0"
        ((num_done,),) = select(place.out, "SELECT COUNT(*) FROM attempts WHERE state = 'done'")
        assert 0 < num_done <= NUM_TRIALS
        assert (num_done == NUM_TRIALS) == (size == "1024k")
    assert place.read("second.code").strip() == "0", place.read("second.err")
    assert table(place.out / "table.csv") == whole_table


@pytest.mark.parametrize("target", ["tiny", "tiny/ledger.sqlite"])
def test_results_that_are_read_only_stop_the_sweep_before_it_starts(target: str, place: Place) -> None:
    sweep = load_sweep(place.sweep)
    with Ledger.open(place.results / "tiny" / "ledger.sqlite") as ledger:
        ledger.register(describe(sweep, expand(sweep), {}), expand(sweep), collect_provenance())
    before = (place.results / "tiny" / "ledger.sqlite").read_bytes()
    run_with_mounts(READ_ONLY, PROGRAM, place.sweep, place.results, place.out, target)
    assert place.read("first.code").strip() == str(EXIT_STOPPED)
    message = place.read("first.err")
    assert message.startswith(f"specsweep: {place.results / 'tiny'}")
    assert "read-only" in message.lower()
    assert message.count("\n") == 1
    assert (place.results / "tiny" / "ledger.sqlite").read_bytes() == before
