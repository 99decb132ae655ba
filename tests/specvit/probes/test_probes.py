import subprocess
import sys

from specvit.probes import METRICS, PROBES


def test_probes_report_the_metrics_that_tables_know():
    assert {name: [metric.name for metric in probe.metrics] for name, probe in PROBES.items()} == {
        "attentive": ["attentive_top1"],
        "depth": ["depth_rmse", "depth_abs_rel", "depth_delta1"],
        "detection": ["ap", "ap50"],
        "knn": ["knn_top1"],
        "linear": ["linear_top1"],
        "segmentation": ["miou"],
    }
    assert {probe.needs for probe in PROBES.values()} == {"labels", "masks", "depth", "boxes"}
    assert {name for name, metric in METRICS.items() if metric.unit != "%"} == {"depth_rmse"}
    assert {name for name, metric in METRICS.items() if not metric.higher_is_better} == {"depth_rmse", "depth_abs_rel"}


def test_settings_of_probes_load_without_torch():
    code = "import sys; import specvit.probes as p; [c() for c in p.PROBES.values()]; print('torch' in sys.modules)"

    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert output.strip() == "False"
