"""Whatever a sweep file holds, it is planned or refused: exit code 0 or 2, a message with its place, no trace.

200 files are tried, the same in every run; in the long run 2,500, which ``make faults SEED=random`` draws anew.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, given, settings

from orchestrator.cli.app import main

from ..long_run import IS_LONG
from .harness.hostile_values import MARKER
from .harness.sweep_files import BASES, EXTENDED, Case, cases

FAULTS = settings(
    max_examples=2_500 if IS_LONG else 200,
    derandomize=not IS_LONG,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
HANGS_AFTER_S = 120
"""CPU seconds of this process after which a plan is taken for one that never ends: most take hundredths of a second,
the longest seconds."""

FILE = "sweep.yaml"
PLACE = re.compile(rf"({re.escape(FILE)}|{re.escape(EXTENDED)})(:\d+)*: |--set .*: ", re.DOTALL)


class HungError(BaseException):
    """Signal a plan that does not end; no handler of ``Exception`` may catch it."""


@dataclass(frozen=True)
class Ended:
    """Hold how a command ended and what it printed."""

    code: int
    out: str
    err: str


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Interrupt what does not end."""

    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise HungError(f"no end after {HANGS_AFTER_S} s of CPU time")

    before = signal.signal(signal.SIGPROF, on_alarm)
    signal.setitimer(signal.ITIMER_PROF, HANGS_AFTER_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def run_command(case: Case | None, *command: str) -> Ended:
    """Run a command in this process and in this folder, on streams as strict as a terminal's."""
    if case is not None:
        Path(FILE).write_bytes(case.content)
        Path(EXTENDED).write_bytes(case.extended)
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace")]
    overrides = () if case is None else case.overrides
    before = sys.argv
    sys.argv = ["specsweep", *command, FILE, *(part for text in overrides for part in ("--set", text))]
    try:
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]), watched():
            with pytest.raises(SystemExit) as end:
                main()
            for stream in streams:
                stream.flush()
    finally:
        sys.argv = before
    out, err = (stream.buffer.getvalue().decode() for stream in streams)  # type: ignore[attr-defined]
    assert isinstance(end.value.code, int)
    return Ended(end.value.code, out, err)


def traces() -> list[str]:
    """List what lies in this folder and below it."""
    return sorted(str(path) for path in Path().rglob("*"))


def check(case: Case) -> Ended:
    """Plan, and hold the outcome against what is promised of every one."""
    ended = run_command(case, "plan")
    assert ended.code in (0, 2), ended.err
    assert "Traceback" not in ended.err
    if ended.code == 2:
        assert not ended.out
        assert all(PLACE.match(line) for line in ended.err.splitlines()), ended.err
        assert ended.err.strip()
    else:
        assert ended.out
        assert not ended.err
    assert traces() == [EXTENDED, "results", FILE]
    Path(FILE).unlink()
    return ended


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty folder that holds an empty results folder, without a network."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    return tmp_path


def test_any_sweep_file_is_planned_or_refused(folder: Path) -> None:
    codes: Counter[int] = Counter()

    @FAULTS
    @given(case=cases())
    def plan_one(case: Case) -> None:
        codes[check(case).code] += 1

    plan_one()
    assert min(codes[0], codes[2]) >= FAULTS.max_examples / 20, "hardly any file is planned, or hardly any is refused"


BASE = "objective: {recipe: dinov2_cpu, steps: 9, num_locals: 0}\nprobes: {knn: }\nrungs: {count: 0}\n"
"""A file that can be planned, to be extended."""


def test_every_file_that_users_run_can_be_planned(folder: Path) -> None:
    assert {name: check(Case(content)).code for name, content in BASES.items()} == dict.fromkeys(BASES, 0)


@pytest.mark.parametrize(
    "tag",
    [
        f"!!python/object/apply:os.system ['touch {MARKER}']",
        f"!!python/object/new:os.system ['touch {MARKER}']",
        f"!!python/object/apply:subprocess.check_output [[touch, {MARKER}]]",
        "!!python/name:os.system",
        "!<tag:yaml.org,2002:python/object/apply:os.getcwd> []",
    ],
)
@pytest.mark.parametrize("where", ["question: {}", "data: {}", "? {}\n: x", "seeds: [{}]", "--- {}"])
def test_a_tag_makes_no_object(tag: str, where: str, folder: Path) -> None:
    ended = check(Case((where.format(tag) + "\n" + BASE).encode()))  # it looks for the marker's file
    assert ended.code == 2
    ended = check(Case(BASE.encode(), (f"question={tag}",)))
    assert (ended.code, "tags" in ended.err) == (2, True)


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "/etc/x", ".", "..", "", " ", "a/b", "a/../../b", "~", "~root", "C:\\x", "x\\y", ".x", "x\n", "x\0"),
        *("é", "x" * 101),
    ],
)
def test_a_name_that_is_no_single_folder_is_refused(name: str, folder: Path) -> None:
    ended = check(Case(f"{BASE}name: {json.dumps(name)}\n".encode()))
    assert ended.code == 2
    assert ended.err.startswith(f"{FILE}:4: name: ")
    if "\0" not in name:
        assert check(Case(BASE.encode(), (f"name={json.dumps(name)}",))).code == 2


@pytest.mark.parametrize("markup", ["[red]x[/red]", "[/]", "[link=file:///x]y", "[bold", ":smiley:"])
def test_markup_is_shown_as_it_is(markup: str, folder: Path) -> None:
    text = (
        f"question: {json.dumps(markup)}\nprobes: {{knn: }}\nrungs: {{count: 0}}\n"
        "objective: {recipe: dinov2_cpu, steps: 9, num_locals: 0}\n"
        "data: {source: hugging_face, path: x, label_column: y}\n"
        f"vary: {{data.train_split: [{json.dumps(markup)}, train]}}\n"
    )
    ended = check(Case(text.encode()))
    assert ended.code == 0
    assert [line.strip() for line in ended.out.splitlines()].count(markup) == 1
    assert f"data.train_split={markup}" in ended.out


def test_markup_in_a_root_that_is_not_there_is_shown_as_it_is(folder: Path) -> None:
    text = f"{BASE}data: {{source: image_folder, root: '[red]x[/red]', image_size: 32}}\n"
    assert check(Case(text.encode())).code == 0
    ended = run_command(Case(text.encode()), "run", "--executor", "local")
    assert ended.code == 2
    assert "[red]x[/red]" in ended.err
    assert traces() == [EXTENDED, "results", FILE]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", f"{FILE}:1: the file is empty"),
        (b"\0", f"{FILE}:1: character U+0000"),
        (BASE.encode("utf-16"), f"{FILE}:1: must be saved as UTF-8, not UTF-16"),
        (BASE.encode() + b"question: caf\xe9\n", f"{FILE}:4: must be UTF-8; byte 0xe9 is not"),
        (BASE.encode() + b"#" * 2**20, f"{FILE}: must be at most 1048576 bytes"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", f"{FILE}:2:8: aliases (*a) are not supported"),
        (BASE.encode() + b"question: " + b"[" * 10_000, f"{FILE}:4:"),
    ],
)
def test_what_is_no_sweep_file_is_refused_in_one_line(content: bytes, message: str, folder: Path) -> None:
    ended = check(Case(content))
    assert ended.code == 2
    assert ended.err.startswith(message)
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("is_there", [False, True])
def test_a_folder_or_nothing_in_place_of_the_file_is_refused(is_there: bool, folder: Path) -> None:
    if is_there:
        Path(FILE).mkdir()
    ended = run_command(None, "plan")
    assert ended.code == 2
    assert PLACE.match(ended.err)


def listed(*texts: object) -> str:
    return f"[{', '.join(map(str, texts))}]"


RATES = listed(*(index / 1e6 for index in range(1, 20_001 if IS_LONG else 1_001)))
NUMBERED = listed(*(f"x{index}" for index in range(3000)))
HUGE = {
    "crossed": (2, f"ablate: {{components: {NUMBERED}, blocks: {NUMBERED}, modes: [full, gate]}}\n"),
    "written out": (2, f"ablate: {{specialize: {NUMBERED}, modes: {NUMBERED}}}\n"),
    "repeated": (
        0,
        f"ablate: {{components: [norm], init: {listed(*['copy'] * 2000)}, tokens: {listed(*['cls'] * 2000)}, "
        f"registers_with: {listed(*['cls'] * 2000)}}}\nmodel: {{high_norm: 'registers:1'}}\n",
    ),
    "groups": (0, f"seeds: 1\nfloors: []\nvary: {{objective.lr: {RATES}}}\n"),
    "comparators in groups": (
        2,
        f"ablate: {{comparators: {listed(*(f'{{comparator: jumbo, slots: {n}}}' for n in range(1, 1000)))}}}\n"
        f"vary: {{objective.lr: {listed(*range(1, 1000))}}}\n",
    ),
    "crossed groups": (2, "".join(["vary:\n", *(f"  objective.x{n}: [1, 2, 3]\n" for n in range(60))])),
    "seeds": (2, f"seeds: {10**18}\n"),
}


@pytest.mark.parametrize("case", HUGE)
def test_a_huge_grid_is_refused_or_planned_in_time(case: str, folder: Path) -> None:
    code, text = HUGE[case]
    assert check(Case((BASE + text).encode())).code == code
