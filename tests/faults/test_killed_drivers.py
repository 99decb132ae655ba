"""Drivers that are killed: wherever they die, the next one ends the sweep as if nothing had been.

Each arm and seed is done exactly once, no rung is lost or doubled, and what lies in the folder is the uninterrupted
run's to the last byte, seconds included, which stand-ins count by steps. Of real trials the columns of wall and CPU
time are left out. Every run kills drivers at every kind of transition, the long run at every transition and statement.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable

import pytest

from ..long_run import IS_LONG, SLOW_IF_LONG
from .harness.crash_points import Place
from .harness.forked_drivers import DriverServer, Site
from .harness.killed_sweeps import KILLED, NUM_FLOORS, NUM_TRAINED, Folders, Whole

pytestmark = SLOW_IF_LONG

NUM_TWICE = 40 if IS_LONG else 4
NUM_RANDOM = 120 if IS_LONG else 12
NUM_REAL = 12 if IS_LONG else 0
LEAST_KILLS = 350 if IS_LONG else 50


def test_stand_ins_count_their_seconds_by_steps(short: Whole) -> None:
    trained = (short.subject.steps / 2, short.subject.steps / 4)
    assert sorted(short.ended.seconds.values()) == [(0.0, 0.0)] * NUM_FLOORS + [trained] * NUM_TRAINED


def test_a_driver_comes_by_every_kind_of_transition_and_by_enough_of_them(short: Whole) -> None:
    names = set(short.points.values())
    transactions = ("the schema", "register", "release_running", "clear_skipped", "begin_attempt", "record_all")
    changes = ("replace .safetensors", "unlink .safetensors", "replace table.md", "replace table.csv")
    for name in (*(f"COMMIT of {method}" for method in transactions), *changes):
        assert {f"before {name}", f"after {name}"} <= names
    # Every trial is begun; every event is on record by itself: a start, the steps, the rungs and an end.
    events = NUM_TRAINED * (1 + short.subject.steps + len(short.subject.rungs) + 1) + NUM_FLOORS * 3
    recorded = [name for name in short.points.values() if name == "after COMMIT of record_all"]
    begun = [name for name in short.points.values() if name == "after COMMIT of begin_attempt"]
    assert (len(recorded), len(begun)) == (events, NUM_TRAINED + NUM_FLOORS)
    assert len(places_to_die(short)) + 2 * NUM_TWICE + NUM_RANDOM + NUM_REAL >= LEAST_KILLS
    assert {short.points[place] for place in places_to_die(short)} == names


def places_to_die(whole: Whole) -> list[Place]:
    """Return all points of the driver; in a short run one of each kind, of those that repeat one in the middle."""
    if IS_LONG:
        return list(whole.points)
    kinds: defaultdict[str, list[Place]] = defaultdict(list)
    for place, name in whole.points.items():
        kinds[name].append(place)
    return [places[len(places) // 2] for places in kinds.values()]


def test_after_a_driver_that_was_killed_at_any_transition_the_next_ends_the_sweep_as_if_nothing_had_been(
    server: DriverServer, short: Whole, folders: Folders
) -> None:
    wrong = {}
    for place in places_to_die(short):
        site = folders.new(short)
        codes = [server.run(site, kill_at=place), server.run(site)]
        if faults := faults_after(codes, [KILLED, 0], site, short):
            wrong[f"{place}: {short.points[place]}"] = faults
    assert wrong == {}


def test_after_drivers_that_were_killed_one_after_the_other_a_third_ends_the_sweep_as_if_nothing_had_been(
    server: DriverServer, short: Whole, folders: Folders
) -> None:
    draw, wrong = random.Random(1), {}
    places = list(short.points)
    for _ in range(NUM_TWICE):
        cut = draw.randrange(len(places))
        first = places[cut]
        # The second driver opens the folder anew and comes by what the first one did not reach, so it dies too.
        second = "driver", draw.randint(1, sum(thread == "driver" for thread, _ in places[cut:]) or 1)
        site = folders.new(short)
        codes = [server.run(site, kill_at=first), server.run(site, kill_at=second), server.run(site)]
        if faults := faults_after(codes, [KILLED, KILLED, 0], site, short):
            wrong[f"{first}, then {second}"] = faults
    assert wrong == {}


@pytest.mark.long
def test_after_a_driver_that_was_killed_at_any_statement_the_next_ends_the_sweep_as_if_nothing_had_been(
    server: DriverServer, short: Whole, folders: Folders
) -> None:
    wrong, number = {}, 0
    while True:
        number += 1
        site = folders.new(short)
        code = server.run(site, kill_at=("driver", number), all_statements=True)
        if code == 0:
            break
        if faults := faults_after([code, server.run(site)], [KILLED, 0], site, short):
            wrong[number] = faults
    assert wrong == {}
    assert number > len(short.points)


@pytest.mark.long
def test_drivers_that_are_killed_at_random_times_end_the_sweep_as_if_nothing_had_been(
    server: DriverServer, fine: Whole, folders: Folders
) -> None:
    kill_at_random(server, fine, folders, num_kills=NUM_RANDOM, draw_delay=lambda draw: draw.uniform(0.0, 0.25))


@pytest.mark.long
def test_drivers_of_real_trials_that_are_killed_at_random_times_end_the_sweep_with_the_same_numbers(
    server: DriverServer, real: Whole, folders: Folders
) -> None:
    kill_at_random(server, real, folders, num_kills=NUM_REAL, draw_delay=lambda draw: draw.uniform(0.1, 1.5))


def kill_at_random(
    server: DriverServer,
    whole: Whole,
    folders: Folders,
    *,
    num_kills: int,
    draw_delay: Callable[[random.Random], float],
) -> None:
    """Kill drivers after random times, of one sweep after the other; let the last sweep come to its end."""
    draw, wrong, killed = random.Random(2), {}, 0
    while killed < num_kills:
        site, codes = folders.new(whole), [KILLED]
        while codes[-1] == KILLED:
            pid = server.start(site, **whole.subject.wishes)
            if killed < num_kills:
                time.sleep(draw_delay(draw))
                codes.append(server.kill(pid))
                killed += codes[-1] == KILLED
            else:
                codes.append(server.wait(pid))
        if faults := faults_after(codes[1:], [KILLED] * (len(codes) - 2) + [0], site, whole):
            wrong[site.root.name] = faults
    assert wrong == {}
    assert killed == num_kills


def faults_after(codes: list[int], wanted: list[int], site: Site, whole: Whole) -> list[str]:
    """Return what is wrong with a sweep after drivers that ended with ``codes``."""
    if codes != wanted:
        return [f"exit codes {codes}, not {wanted}", site.log.read_text()]
    return whole.faults_of(site, num_kills=len(codes) - 1)
