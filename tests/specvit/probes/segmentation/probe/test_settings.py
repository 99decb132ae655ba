"""Settings of the probe: those of its protocol and no others."""


import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specvit.probes import PROBES
from specvit.probes.segmentation.fitters import FITTERS
from specvit.probes.segmentation.probe import DEFAULTS, Segmentation


def test_segmentation_is_ridge_by_default_with_no_field_of_another_protocol():
    probe = Segmentation()

    assert probe.protocol == "ridge"
    assert (probe.penalties, probe.balance, probe.upsample) == ((1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5), 0.75, "bilinear")
    others = ("cs", "lrs", "steps", "batch_size", "dropout", "ks", "max_patches")
    assert {name: getattr(probe, name) for name in others} == dict.fromkeys(others)


def test_segmentation_fields_take_the_published_defaults_of_their_protocol():
    logistic, linear, knn = (Segmentation(protocol=protocol) for protocol in ("logistic", "linear", "knn"))

    np.testing.assert_allclose(logistic.cs, 10 ** np.linspace(-6, 5, 8), rtol=0.02)
    assert logistic.upsample == "nearest"
    assert (linear.dropout, linear.batch_size, linear.upsample) == (0.1, 16, "bilinear")
    assert linear.lrs[0] == 1e-3
    assert knn.ks == (1, 3, 10, 30)
    assert knn.upsample is None


def test_segmentation_protocols_have_defaults_fitters_and_documented_fields():
    assert list(DEFAULTS) == list(FITTERS) == ["ridge", "logistic", "linear", "knn"]
    names = {name for fields in DEFAULTS.values() for name in fields}
    assert {field.name for field in dataclasses.fields(Segmentation)} == names | {"protocol", "data", "num_train"}


@given(protocol=st.sampled_from(list(DEFAULTS)), owner=st.sampled_from(list(DEFAULTS)), data=st.data())
def test_segmentation_takes_a_field_if_and_only_if_it_belongs_to_the_protocol(protocol, owner, data):
    name = data.draw(st.sampled_from(list(DEFAULTS[owner])))
    value = DEFAULTS[owner][name]

    if name in DEFAULTS[protocol]:
        probe = Segmentation(protocol=protocol, **{name: value})
        assert getattr(probe, name) == value
        assert dataclasses.replace(probe) == probe
    else:
        with pytest.raises(ValueError, match=f"{name} must not be given with protocol '{protocol}'.*{owner}"):
            Segmentation(protocol=protocol, **{name: value})


@pytest.mark.parametrize(
    "arguments",
    [
        {"penalties": ()},
        {"penalties": (0.0,)},
        {"balance": 1.5},
        {"upsample": "cubic"},
        {"lr": 0.1},
        {"protocol": "svm"},
        {"cs": (), "protocol": "logistic"},
        {"cs": (-1.0,), "protocol": "logistic"},
        {"lrs": (0.0,), "protocol": "linear"},
        {"steps": 0, "protocol": "linear"},
        {"batch_size": 1.5, "protocol": "linear"},
        {"dropout": 1.0, "protocol": "linear"},
        {"ks": (0,), "protocol": "knn"},
        {"max_patches": 0, "protocol": "knn"},
        {"upsample": "nearest", "protocol": "knn"},
    ],
)
def test_segmentation_with_a_bad_setting_is_rejected(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Segmentation(**arguments)


def test_segmentation_is_found_by_name():
    assert PROBES["segmentation"] is Segmentation
