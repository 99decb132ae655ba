"""The long run, ``make faults``: what takes more time than there is before every commit.

``SPECSWEEP_FAULTS=long`` asks for it. It runs all of ``tests/faults``, where ``IS_LONG`` chooses more cases of a kind,
and of the other folders the tests marked ``long``, which ``make test`` leaves out::

    @pytest.mark.long
    def test_..

    @pytest.mark.parametrize("recipe", ["deit3_cpu", pytest.param("mae_cpu", marks=pytest.mark.long)])
"""

from __future__ import annotations

import os

import pytest

IS_LONG = os.environ.get("SPECSWEEP_FAULTS") == "long"

SLOW_IF_LONG = [pytest.mark.slow] if IS_LONG else []
"""``pytestmark`` of files that take minutes in the long run, which begins them first."""

ONLY_LONG = [pytest.mark.long, pytest.mark.slow]
"""``pytestmark`` of files that are of the long run alone, and are begun first there."""
