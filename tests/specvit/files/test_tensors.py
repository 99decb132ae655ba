from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from orchestrator.execution.causes import cause_of
from orchestrator.trials.records import Cause
from specvit.errors import SpecsweepError
from specvit.files.tensors import write_tensors

from ..file_size_limit import file_size_limit

VALUES = {"a": torch.arange(1000.0)}


def test_tensors_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", VALUES, metadata={"text": "t"})
    assert torch.equal(load_file(tmp_path / "x")["a"], VALUES["a"])


def test_the_same_tensors_and_texts_make_the_same_bytes(tmp_path: Path) -> None:
    metadata = {"format": "pt", "c": '{"a": "\u00e4\u2028\\n\t\x01"}', "a": "", "b": "x" * 1000}
    for number in range(20):
        order = sorted(metadata, key=lambda name: hash((name, number)))
        write_tensors(tmp_path / str(number), VALUES, metadata={name: metadata[name] for name in order})
    contents = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(contents) == 1
    with safe_open(tmp_path / "0", "pt") as file:
        assert file.metadata() == metadata
        assert torch.equal(file.get_tensor("a"), VALUES["a"])


def test_a_file_for_which_there_is_no_room_is_a_failure_of_the_disk_and_leaves_nothing(tmp_path: Path) -> None:
    with file_size_limit(1000), pytest.raises(SpecsweepError, match="x: cannot be written") as failed:
        write_tensors(tmp_path / "x", VALUES, metadata={})
    assert isinstance(failed.value.__cause__, OSError)
    assert failed.value.__cause__.errno == errno.EFBIG
    assert cause_of(failed.value) is Cause.IO
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_with_tensors_is_not_taken_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SafetensorError("unknown dtype")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(SafetensorError, match="unknown dtype"):
        write_tensors(tmp_path / "x", VALUES, metadata={})
