from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import pytest
from PIL import Image

from specvit.data.reading import image_reader
from specvit.data.reading.image_reader import ImageReader
from specvit.data.reading.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "specvit.data"]


def test_a_line_every_five_seconds_says_how_far_and_how_fast(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "specvit.data")
    clock = Clock()
    progress = Progress("images of train", 50_000, clock=clock)
    for second in range(1, 13):
        clock.now = 100.0 + second
        progress.update(1000 * second)
    assert lines(caplog) == [
        "read 5,000 of 50,000 images of train, 1,000 a second",
        "read 10,000 of 50,000 images of train, 1,000 a second",
    ]


def test_a_number_that_is_not_known_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "specvit.data")
    clock = Clock()
    progress = Progress("images", None, clock=clock)
    clock.now += 10
    progress.update(20)
    assert lines(caplog) == ["read 20 images, 2 a second"]


def test_map_tells_of_a_long_run_and_keeps_the_order(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "specvit.data")
    monkeypatch.setattr("specvit.data.reading.progress.INTERVAL_S", 0.0)
    monkeypatch.setattr(image_reader, "BLOCK", 4)
    assert ImageReader().map(lambda index: bytes([index]), range(10), what="stamps") == [bytes([i]) for i in range(10)]
    told = lines(caplog)
    assert len(told) == 10
    assert told[-1].startswith("read 10 of 10 stamps, ")


def test_map_takes_from_a_stream_no_more_than_it_works_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_reader, "BLOCK", 4)
    taken: list[int] = []

    def stream() -> Iterator[int]:
        for index in range(100):
            taken.append(index)
            yield index

    def read(index: int) -> bytes:
        if index == 5:
            raise ValueError("five")
        return b""

    with pytest.raises(ValueError, match="five"):
        ImageReader().map(read, stream())
    assert len(taken) == 8


def test_map_leaves_warnings_as_they_were() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ImageReader().map(lambda _: b"", [1])
        warnings.warn("bomb", Image.DecompressionBombWarning, stacklevel=1)
    assert len(caught) == 1
