from dataclasses import dataclass

import pytest

from specvit.probes.protocols import resolve_protocol

DEFAULTS = {"ridge": {"penalties": (1.0, 0.1), "upsample": "bilinear"}, "knn": {"ks": (1, 3)}}


@dataclass(frozen=True)
class Probe:
    penalties: tuple[float, ...] | None = None
    upsample: str | None = None
    ks: tuple[int, ...] | None = None


def test_fields_that_are_not_given_take_their_protocols_defaults_and_those_of_others_stay_none():
    probe = Probe(upsample="nearest")
    resolve_protocol(probe, "ridge", DEFAULTS)
    assert probe == Probe(penalties=(1.0, 0.1), upsample="nearest")


def test_a_field_of_another_protocol_is_refused_whatever_its_value():
    with pytest.raises(ValueError, match="ks must not be given with protocol 'ridge'; it is a setting of knn"):
        resolve_protocol(Probe(ks=(1, 3)), "ridge", DEFAULTS)
