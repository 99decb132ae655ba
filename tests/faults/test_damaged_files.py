"""Files that are cut off or changed: what they say is what was recorded, or they are refused, never anything else.

SPECSWEEP_FAULTS=long (``make faults``) tries every byte where the tests of every day try some.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from orchestrator.ledger.errors import LedgerError
from orchestrator.ledger.ledger import Ledger
from specvit.errors import DataError
from specvit.training.checkpoint import Checkpoint, SavedStep, copy_state, load_state, write_state

from ..long_run import IS_LONG, SLOW_IF_LONG
from .harness.ledger_history import LOG_NAME, Content, Files, content_of, make_files, open_both_ways

pytestmark = SLOW_IF_LONG

FRAME_BYTES = 24 + 4096
LOG_HEADER_BYTES = 32

LAYOUTS = {
    "closed": {"close": True},
    "in use": {},
    "in use, log folded in": {"checkpoint_after": -1},
    "in use, log begun anew": {"checkpoint_after": 20},
}


@pytest.fixture(scope="module", params=LAYOUTS)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_files(tmp_path_factory.mktemp("whole"), **LAYOUTS[request.param])


@pytest.fixture(scope="module")
def in_use(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_files(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_files(tmp_path_factory.mktemp("whole"), close=True)


def some(positions: Sequence[int], number: int, *, in_long: int | None = None) -> Iterable[int]:
    """Return ``number`` of the positions, evenly, with the first and the last three; in long runs more, or all."""
    number = (in_long or len(positions)) if IS_LONG else number
    if len(positions) <= number:
        return positions
    return sorted({*positions[:3], *positions[:: math.ceil(len(positions) / number)], *positions[-3:]})


def last_transaction(log: bytes) -> int:
    """Return where the last transaction of a log begins: after the frame before it that ends one."""
    starts = range(LOG_HEADER_BYTES, len(log), FRAME_BYTES)
    # The second number of a frame's header is the ledger's size in pages, and 0 but for the last of a transaction.
    ends = [start + FRAME_BYTES for start in starts if any(log[start + 4 : start + 8])]
    assert ends[-1] == len(log)
    return ends[-2]


def what_became_of(path: Path, allowed: Sequence[Content]) -> set[str]:
    """Open a damaged ledger both ways; make sure that it says one of the things allowed, or is refused."""
    outcomes = set()
    for said in open_both_ways(path):
        if isinstance(said, LedgerError):
            assert str(said).startswith(str(path))
            outcomes.add("refused")
        else:
            assert said in allowed
            outcomes.add("opened")
    return outcomes


def test_whole_ledger_says_what_was_recorded(files: Files, tmp_path: Path) -> None:
    assert list(open_both_ways(files.lay(tmp_path))) == [files.states[-1]] * 2


def test_log_cut_off_anywhere_in_its_last_transaction_leaves_all_before(in_use: Files, tmp_path: Path) -> None:
    start = last_transaction(in_use.log)
    for length in some(range(start, len(in_use.log)), 40):
        path = in_use.lay(tmp_path, log=in_use.log[:length])
        assert list(open_both_ways(path)) == [in_use.states[-2]] * 2, length


def test_log_cut_off_anywhere_leaves_what_some_transaction_left(files: Files, tmp_path: Path) -> None:
    outcomes = set()
    for length in some(range(len(files.log)), 40, in_long=1500):
        outcomes |= what_became_of(files.lay(tmp_path, log=files.log[:length]), files.states)
    assert not files.log or "opened" in outcomes


def test_ledger_cut_off_anywhere_is_refused(closed: Files, tmp_path: Path) -> None:
    # Without a byte it is a file in which nothing was ever recorded, and which no one can tell from a new one.
    pages = len(closed.ledger) // 4096
    head, last = range(1, 4096), range((pages - 1) * 4096, len(closed.ledger))
    for length in itertools.chain(some(head, 30), (page * 4096 for page in range(1, pages)), some(last, 60)):
        before = closed.ledger[:length]
        path = closed.lay(tmp_path, ledger=before)
        assert what_became_of(path, []) == {"refused"}, length
        assert path.read_bytes() == before


def test_ledger_without_a_byte_beside_its_log_is_refused_and_the_log_kept(in_use: Files, tmp_path: Path) -> None:
    path = in_use.lay(tmp_path, ledger=b"")
    assert what_became_of(path, []) == {"refused"}
    assert (tmp_path / LOG_NAME).read_bytes() == in_use.log


def test_ledger_without_its_log_is_what_some_transaction_left_or_refused(files: Files, tmp_path: Path) -> None:
    what_became_of(files.lay(tmp_path, log=b""), files.states)


@pytest.mark.parametrize("where", ["ledger", "log"])
def test_ledger_with_a_changed_byte_says_what_was_recorded_or_is_refused(
    where: str, files: Files, tmp_path: Path
) -> None:
    rng = random.Random(f"{where} {len(files.log)}")
    data = getattr(files, where)
    # What follows a damaged frame of the log is lost, as by a power cut: an earlier moment, whole.
    allowed = files.states if where == "log" else files.states[-1:]
    outcomes: set[str] = set()
    for _ in range((1000 if IS_LONG else 30) if data else 0):
        position, change = rng.randrange(len(data)), rng.randrange(1, 256)
        changed = bytearray(data)
        changed[position] ^= change
        before = {where: bytes(changed)}
        path = files.lay(tmp_path, **before)
        outcome = what_became_of(path, allowed)
        assert len(outcome) == 1, (position, change)
        if outcome == {"refused"}:
            assert path.read_bytes() == before.get("ledger", files.ledger)
        outcomes |= outcome
    if data and not files.log:
        assert outcomes == {"opened", "refused"}


def test_ledger_whose_values_are_changed_is_refused(closed: Files, tmp_path: Path) -> None:
    """The damage that SQLite does not notice: digits of numbers, letters of texts."""
    for old, new in {b"50.25": b"51.25", b"40.125": b"40.225", b"45.75": b"55.75", b"none seed": b"nine seed"}.items():
        assert old in closed.ledger
        path = closed.lay(tmp_path, ledger=closed.ledger.replace(old, new, 1))
        for said in open_both_ways(path):
            assert "damaged, or was changed by another program" in str(said)


@pytest.mark.parametrize("place", ["the log's header", "first frame", "a frame in the middle", "last frame"])
def test_writer_of_a_ledger_whose_log_is_damaged_says_how_many_transactions_are_missing(
    place: str, in_use: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    num_frames = len(in_use.log) // FRAME_BYTES
    frame = {"first frame": 0, "a frame in the middle": num_frames // 2, "last frame": num_frames - 1}.get(place)
    damaged = bytearray(in_use.log)
    damaged[17 if frame is None else LOG_HEADER_BYTES + frame * FRAME_BYTES + 1000] ^= 1
    path = in_use.lay(tmp_path, log=bytes(damaged))
    with Ledger.open(path) as ledger:
        num_missing = len(in_use.states) - 1 - in_use.states.index(content_of(ledger))
    (message,) = [record.message for record in caplog.records]
    assert message.startswith(f"{path}-wal: is damaged, as by a power cut: the last {num_missing} transactions")
    caplog.clear()
    Ledger.open(path).close()
    assert not caplog.records


def test_writer_of_a_ledger_in_use_or_closed_has_nothing_to_warn_of(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Ledger.open(files.lay(tmp_path)).close()
    assert not caplog.records


def small() -> tuple[nn.Module, torch.optim.Optimizer]:
    learner = nn.Linear(2, 1)
    with torch.no_grad():
        learner.weight.fill_(0.5)
        learner.bias.fill_(0.25)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=0.1)
    learner(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    return learner, optimizer


def values_of(learner: nn.Module, optimizer: torch.optim.Optimizer) -> list[object]:
    moments = [value.tolist() for state in optimizer.state.values() for value in state.values()]
    weights = [value.tolist() for value in learner.state_dict().values()]
    return [weights, moments, optimizer.state_dict()["param_groups"]]


def damaged_states(data: bytes) -> Iterable[bytes]:
    yield from (data[:length] for length in some(range(1, len(data)), 200))
    rng = random.Random(len(data))
    for _ in range(5_000 if IS_LONG else 600):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        yield bytes(changed)


def test_state_that_is_damaged_anywhere_is_restored_exactly_or_refused(tmp_path: Path) -> None:
    saved = small()
    checkpoint = Checkpoint(tmp_path / "state", "trial", notes={"note": [1.5]})
    write_state(checkpoint, copy_state(checkpoint, *saved, SavedStep(3, 0.125, 4)))
    learner, optimizer = small()
    optimizer.step()  # stands elsewhere than what was saved
    start = values_of(learner, optimizer)
    assert start != values_of(*saved)
    num_refused = 0
    for data in damaged_states((tmp_path / "state").read_bytes()):
        checkpoint = Checkpoint(tmp_path / "state", "trial")
        message, stands = "", None
        try:
            stands = load_state(data, checkpoint, learner, optimizer)
        except DataError as error:
            message = str(error)
        if stands is None:
            num_refused += 1
            assert message.startswith(f"{tmp_path / 'state'}: ")
            assert (values_of(learner, optimizer), checkpoint.notes) == (start, {})
        else:
            # One blank for another between the parts of the JSON: what is read is what was written.
            assert (stands, checkpoint.notes) == (SavedStep(3, 0.125, 4), {"note": [1.5]})
            assert values_of(learner, optimizer) == values_of(*saved)
            learner, optimizer = small()
            optimizer.step()
    assert num_refused
