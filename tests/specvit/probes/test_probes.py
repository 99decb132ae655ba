import subprocess
import sys
from typing import ClassVar

import pytest
import torch

from specvit.errors import DivergenceError, PartError
from specvit.plugins import PartTable
from specvit.probes import METRICS, PROBES, Metric, Probe, ProbeSplit, _check_metrics
from specvit.probes.knn import Knn
from specvit.settings import settings


def test_probes_report_the_metrics_that_tables_know():
    assert {name: [metric.name for metric in probe.metrics] for name, probe in PROBES.items()} == {
        "attentive": ["attentive_top1"],
        "clustering": ["clustering_miou", "clustering_nmi"],
        "depth": ["depth_rmse", "depth_abs_rel", "depth_delta1"],
        "detection": ["ap", "ap50"],
        "in_context": ["in_context_miou"],
        "knn": ["knn_top1"],
        "linear": ["linear_top1"],
        "segmentation": ["miou"],
    }
    assert {probe.needs for probe in PROBES.values()} == {"labels", "masks", "depth", "boxes"}
    assert {name for name, metric in METRICS.items() if metric.unit != "%"} == {"depth_rmse"}
    assert {name for name, metric in METRICS.items() if not metric.higher_is_better} == {"depth_rmse", "depth_abs_rel"}


@settings
class Nearest(Knn):
    """A copy of a probe that still reports the metric of the other one."""

    name: ClassVar[str] = "nearest"


def test_a_metric_that_two_probes_report_is_refused():
    table = PartTable(Probe, (Knn, Nearest), group="specsweep.none", check=_check_metrics)

    with pytest.raises(PartError, match=r"Nearest: the metric 'knn_top1' is reported by probe 'knn' already$"):
        list(table)


@settings
class Reconstruction(Knn):
    """A probe whose metric has the name of a term of a loss."""

    name: ClassVar[str] = "reconstruction"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("pixels_loss", "pixels"),)


def test_a_metric_named_like_what_recipes_record_is_refused():
    table = PartTable(Probe, (Knn, Reconstruction), group="specsweep.none", check=_check_metrics)

    with pytest.raises(PartError, match=r"the metric 'pixels_loss' has a name that the recipes use"):
        list(table)


def test_settings_of_probes_load_without_torch():
    code = "import sys; import specvit.probes as p; [c() for c in p.PROBES.values()]; print('torch' in sys.modules)"

    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert output.strip() == "False"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("linear", {"protocol": "sgd", "lrs": (1e39,), "epochs": 3}),
        ("attentive", {"lrs": (1e30,), "epochs": 3}),
        ("segmentation", {"protocol": "linear", "lrs": (1e30,), "steps": 3}),
        ("depth", {"protocol": "bins", "lrs": (1e30,), "steps": 3}),
        ("detection", {"lrs": (1e30,), "steps": 3}),
    ],
)
def test_a_head_that_has_diverged_is_told_of_and_never_scored(name, settings):
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[0, 0, 4, 4, 1]], dtype=torch.int16).expand(40, 1, 5)
    split = ProbeSplit(
        cls=torch.randn(40, 6, generator=generator),
        patches=torch.randn(40, 4, 6, generator=generator),
        grid=(2, 2),
        labels=torch.arange(40) % 2,
        masks=torch.randint(2, (40, 8, 8), generator=generator, dtype=torch.uint8),
        depth=(torch.rand(40, 8, 8, generator=generator) + 1).half(),
        boxes=boxes,
        image_size=(8, 8),
    )

    with pytest.raises(DivergenceError, match=f"probe '{name}'.*try smaller learning rates"):
        PROBES[name](**settings).evaluate(split, split, num_classes=2, seed=0)
