"""Texts of sweep files, and how what is wrong with one is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.sweep.problems import SweepFileError
from orchestrator.sweep.resolved import Sweep
from specvit.errors import SpecsweepError

VALID = """\
name: components
question: Which component gains from its own [CLS] weights?
model: {scale: nano, patch_size: 4}
data: {source: scenes, image_size: 32}
objective:
  recipe: dinov2_cpu
  steps: 150
  local_size: 16
probes:
  knn:
  linear: {}
rungs: {count: 3}
seeds: [0, 1, 2]
ablate:
  components: [none, norm, qkv, norm+qkv]
  blocks: [first-third, all]
  specialize: [norm@all+qkv@first-third]
vary:
  model.scale: [nano, micro]
floors: [random_init]
pruning: {pruner: none}
resources: {cpus: 1, gpus: 0}
"""
MINIMAL = "objective: {recipe: dinov2_cpu}\nprobes: {knn: }\n"

Load = Callable[..., Sweep]


def message_of(load: Load, text: str, *overrides: str, name: str = "x.yaml") -> str:
    """Load what must fail, and return the message without the folder."""
    with pytest.raises(SweepFileError) as caught:
        load(text, *overrides, name=name)
    assert isinstance(caught.value, SpecsweepError)
    lines = str(caught.value).splitlines()
    return "\n".join(line if line.startswith("--set") else line[line.index(name) :] for line in lines)


def changed(old: str, new: str) -> str:
    assert VALID.count(old) == 1, old
    return VALID.replace(old, new)
