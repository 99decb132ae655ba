"""What is compared of the code, the libraries and the devices of two attempts."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from orchestrator.trials.computation import (
    Computation,
    code_digests,
    differences_text,
    find_differences,
    package_digest,
)

A = Computation({"specvit": "a"}, {"torch": "2.13.0", "timm": "1.0"}, "cpu Xeon")


def test_only_libraries_that_decide_numbers_are_compared_and_python_by_its_minor_version() -> None:
    versions = {"python": "3.11.7", "torch": "2.14.1", "ray": "2.60", "numpy": "2.1.0"}
    expected = {"python": "3.11", "torch": "2.14.1", "numpy": "2.1.0"}
    assert Computation.make({}, versions, "cpu").versions == expected


def test_every_difference_is_told_by_its_kind() -> None:
    other = Computation({"specvit": "b"}, {"torch": "2.14.0", "timm": "1.0"}, "cuda NVIDIA H200")
    found = find_differences([A, A, other])
    assert found == {
        "code": ["specvit"],
        "versions": ["torch 2.13.0 and 2.14.0"],
        "devices": ["cpu Xeon and cuda NVIDIA H200"],
    }
    text = "code (specvit) and versions (torch 2.13.0 and 2.14.0) and devices (cpu Xeon and cuda NVIDIA H200)"
    assert differences_text(found) == text


@pytest.mark.parametrize(
    "other",
    [
        Computation(),
        Computation({"specvit": "a"}),
        Computation(versions={"torch": "2.13.0"}),
        # A part that was added since changes nothing of what is there.
        Computation({"specvit": "a", "vit_orientation": "c"}, A.versions, A.device),
    ],
)
def test_what_is_unknown_differs_from_nothing(other: Computation) -> None:
    assert find_differences([A, other]) == {}


def test_the_digest_is_of_names_and_contents_of_all_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("orchestrator.trials.computation.package_digest", package_digest.__wrapped__)
    package = tmp_path / "own_parts_of_a_test"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("class Probe: ...\n")
    (package / "inner" / "more.py").write_text("X = 1\n")
    (package / "notes.txt").write_text("not source")
    module = __import__("own_parts_of_a_test")
    digests = code_digests([module.Probe()])
    assert [*digests] == ["specvit", "own_parts_of_a_test"]
    content = b"own_parts_of_a_test/__init__.py\0class Probe: ...\nown_parts_of_a_test/inner/more.py\0X = 1\n"
    assert digests["own_parts_of_a_test"] == hashlib.sha256(content).hexdigest()
    (package / "inner" / "more.py").write_text("X = 2\n")
    assert code_digests([module.Probe()])["own_parts_of_a_test"] != digests["own_parts_of_a_test"]
    del sys.modules["own_parts_of_a_test"]


def test_our_own_parts_are_of_specvit_alone() -> None:
    from specvit.probes import PROBES

    assert [*code_digests([PROBES["knn"]()])] == ["specvit"]
