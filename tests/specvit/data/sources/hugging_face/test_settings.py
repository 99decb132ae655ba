"""Settings of the source, and the package that it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from specvit.data import DATA_SOURCES
from specvit.data.sources.hugging_face import HuggingFace
from specvit.errors import DataError


def test_source_is_found_by_name_and_reading_its_settings_imports_no_datasets() -> None:
    assert DATA_SOURCES["hugging_face"] is HuggingFace
    kept = {"cache", "cache_folder", "max_pixels", "max_shared", "workers"}
    assert HuggingFace.path_fields == {"path", "streaming"} | kept
    assert HuggingFace.extra == ("datasets", "huggingface")
    code = "import sys, specvit.data; sys.exit('datasets' in sys.modules or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"streaming": True, "num_train": 5}, "streaming needs num_train and num_val"),
        ({"mask_names": ("a", "a")}, "mask_names must differ"),
        ({"mask_names": tuple(map(str, range(256)))}, "at most 255 classes, not 256"),
    ],
)
def test_settings_that_break_a_rule_are_refused(fields: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        HuggingFace(path="x", **fields)


def test_without_the_package_one_message_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setattr("specvit.data.base.find_spec", lambda _: None)
    source = HuggingFace(path=str(tmp_path))
    rule = r"data\.source 'hugging_face' needs the package 'datasets'.*: pip install \"specsweep\[huggingface\]\""
    for act in (source.check_installed, source.load):
        with pytest.raises(DataError, match=rule):
            act()
