"""The example files for clusters and Grafana that come with the package."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from orchestrator.cli.app import app

from ....waiting import run_to_end, wait_for, wait_for_end

ROOT = Path(__file__).parents[4]
CLUSTERS = ROOT / "orchestrator" / "clusters"
RAYJOB, RAY_UP, SLURM = CLUSTERS / "kuberay_rayjob.yaml", CLUSTERS / "ray_up.yaml", CLUSTERS / "slurm.sh"
DASHBOARD = CLUSTERS / "grafana_dashboard.json"
WITH_COMMENTS = (RAYJOB, RAY_UP, SLURM)

METRIC_TAGS = {
    "ray_specsweep_trials": {"sweep", "state"},
    "ray_specsweep_rung_metric": {"sweep", "group", "arm", "seed", "metric"},
    "ray_specsweep_images_per_second": {"sweep"},
    "ray_specsweep_retries_total": {"sweep", "cause"},
    "ray_specsweep_slots": {"sweep"},
    "ray_specsweep_slots_busy": {"sweep"},
    "ray_specsweep_seconds_left": {"sweep"},
}
"""What a run exports, as Prometheus sees it: Ray puts ``ray_`` before all names and ``_total`` after counters."""
TAGS_OF_RAY = {"SessionName"}

# Field names of ray.io/v1, from KubeRay's API reference.
RAYJOB_FIELDS = {
    "activeDeadlineSeconds", "backoffLimit", "rayClusterSpec", "submitterPodTemplate", "metadata", "clusterSelector",
    "submitterConfig", "managedBy", "deletionStrategy", "entrypoint", "runtimeEnvYAML", "jobId", "submissionMode",
    "entrypointResources", "entrypointNumCpus", "entrypointNumGpus", "ttlSecondsAfterFinished",
    "shutdownAfterJobFinishes", "suspend",
}  # fmt: skip
CLUSTER_FIELDS = {
    "authOptions", "suspend", "managedBy", "autoscalerOptions", "headServiceAnnotations", "enableInTreeAutoscaling",
    "gcsFaultToleranceOptions", "headGroupSpec", "rayVersion", "workerGroupSpecs",
}  # fmt: skip
HEAD_FIELDS = {"template", "headService", "enableIngress", "rayStartParams", "serviceType"}
WORKER_FIELDS = {
    "suspend", "groupName", "replicas", "minReplicas", "maxReplicas", "idleTimeoutSeconds", "rayStartParams",
    "template", "scaleStrategy", "numOfHosts",
}  # fmt: skip
AUTOSCALER_FIELDS = {
    "resources", "image", "imagePullPolicy", "securityContext", "idleTimeoutSeconds", "upscalingMode", "version", "env",
    "envFrom", "volumeMounts",
}  # fmt: skip


def commands_in(path: Path) -> list[str]:
    """Return the ``specsweep`` command lines of a file, those in its comments too."""
    text = re.sub(r"(?m)^#(?!!)", "", path.read_text())
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    found = (re.search(r"(?<!['\"`/\w.-])specsweep (?:run|status) [^`]*", line) for line in lines)
    return [re.split(r" [&|;#]|  ", match[0])[0].strip() for match in found if match]


def all_commands() -> list[Any]:
    commands = dict.fromkeys(command for path in WITH_COMMENTS for command in commands_in(path))
    return [pytest.param(command, id=command) for command in commands]


def command_of(name: str) -> Any:
    group: Any = typer.main.get_command(app)
    return group.commands[name]


def parse(command: str) -> dict[str, Any]:
    """Parse a command line as the program does, without running it; return what it takes from it."""
    _, name, *arguments = shlex.split(command)
    # What a script hands on is its caller's.
    context = command_of(name).make_context(name, [argument for argument in arguments if argument != "$@"])
    parameters: dict[str, Any] = context.params
    return parameters


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    return {document["kind"]: document for document in yaml.safe_load_all(RAYJOB.read_text())}


@pytest.fixture(scope="module")
def cluster(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = manifests["RayJob"]["spec"]["rayClusterSpec"]
    return found


@pytest.fixture(scope="module")
def pods(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


@pytest.fixture(scope="module")
def launcher() -> dict[str, Any]:
    """Return the launcher's configuration as Ray itself fills it out."""
    util = pytest.importorskip("ray.autoscaler._private.util")
    pytest.importorskip("jsonschema")
    prepared: dict[str, Any] = util.prepare_config(yaml.safe_load(RAY_UP.read_text()))
    util.validate_config(prepared)
    return prepared


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def test_every_file_is_carried_by_an_installed_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["orchestrator"]
    names = [str(path.relative_to(ROOT / "orchestrator")) for path in CLUSTERS.iterdir() if path.is_file()]
    assert len(names) >= 4
    assert [name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)] == []


# --- what all of them say


@pytest.mark.parametrize("path", WITH_COMMENTS, ids=lambda path: path.name)
def test_a_file_opens_with_its_question_command_and_what_was_validated(path: Path) -> None:
    lines = path.read_text().removeprefix("#!/usr/bin/env bash\n").splitlines()
    head = "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    assert "?" in head.splitlines()[0]
    words = ("Needs", "Command", "Watch", "Stop", "Security", "Validated")
    assert [word for word in words if f"# {word}:" not in head] == []
    assert "Not run: no " in " ".join(head.replace("#", "").split())


@pytest.mark.parametrize("path", WITH_COMMENTS, ids=lambda path: path.name)
def test_a_file_shows_how_to_run_and_how_to_watch(path: Path) -> None:
    assert {command.split()[1] for command in commands_in(path)} == {"run", "status"}


@pytest.mark.parametrize("command", all_commands())
def test_a_command_line_is_one_that_the_program_takes(command: str) -> None:
    given = parse(command)
    assert Path(given["results"]) != Path("results") or "--results results" in command


@pytest.mark.parametrize("path", [*WITH_COMMENTS, DASHBOARD], ids=lambda path: path.name)
def test_nothing_listens_to_the_world_and_authentication_stays_on(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"0\.0\.0\.0|\bNodePort\b|\bLoadBalancer\b|kind: Ingress|enableIngress", text) == []
    assert set(re.findall(r"dashboard-host\W+([^\s'\"]+)", text)) <= {"127.0.0.1"}
    assert set(re.findall(r"RAY_AUTH_MODE\W+(\w+)", text)) <= {"token"}
    assert re.findall(r"(?i)RAY_AUTH_TOKEN['\"]?\s*[=:]", text) == []  # a token itself belongs into no file


# --- KubeRay


def test_a_rayjob_has_only_fields_that_kuberay_knows(
    manifests: dict[str, dict[str, Any]], cluster: dict[str, Any]
) -> None:
    job = manifests["RayJob"]
    assert job["apiVersion"] == "ray.io/v1"
    assert set(job) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(job["spec"]) <= RAYJOB_FIELDS
    assert set(cluster) <= CLUSTER_FIELDS
    assert set(cluster["headGroupSpec"]) <= HEAD_FIELDS
    assert set(cluster["autoscalerOptions"]) <= AUTOSCALER_FIELDS
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= WORKER_FIELDS
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(type(value) is str for value in group["rayStartParams"].values())


def test_a_rayjob_runs_the_sweep_goes_on_after_a_failure_and_cleans_up(manifests: dict[str, dict[str, Any]]) -> None:
    spec = manifests["RayJob"]["spec"]
    assert spec["entrypoint"].startswith("specsweep run /sweeps/components.yaml --address auto --results /results")
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0


def test_a_rayjob_asks_for_a_token_with_a_ray_that_can(cluster: dict[str, Any]) -> None:
    assert cluster["authOptions"] == {"mode": "token"}
    assert tuple(int(part) for part in cluster["rayVersion"].split(".")[:2]) >= (2, 52)


def test_a_rayjob_scales_its_gpu_workers_within_bounds(cluster: dict[str, Any]) -> None:
    assert cluster["enableInTreeAutoscaling"] is True
    (workers,) = cluster["workerGroupSpecs"]
    assert 1 <= workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    assert workers["minReplicas"] < workers["maxReplicas"]
    (container,) = workers["template"]["spec"]["containers"]
    assert int(container["resources"]["limits"]["nvidia.com/gpu"]) >= 1


def test_every_container_of_a_rayjob_has_requests_and_limits(pods: list[dict[str, Any]]) -> None:
    for pod in pods:
        for container in pod["spec"]["containers"]:
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]) & set(container["resources"]["limits"])


def test_all_pods_of_a_rayjob_mount_the_shared_results_and_the_sweeps(
    manifests: dict[str, dict[str, Any]], pods: list[dict[str, Any]]
) -> None:
    claim = manifests["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods:
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for container in pod["spec"]["containers"]:
            mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
            assert mounts["/results"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
            config_map = mounts["/sweeps"]["configMap"]["name"]
            assert f"kubectl create configmap {config_map} --from-file=" in RAYJOB.read_text()


def test_the_network_policy_covers_all_pods_of_a_rayjob_and_names_who_may_enter(
    manifests: dict[str, dict[str, Any]], pods: list[dict[str, Any]]
) -> None:
    spec = manifests["NetworkPolicy"]["spec"]
    selected = spec["podSelector"]["matchLabels"].items()
    assert all(selected <= pod["metadata"]["labels"].items() for pod in pods)
    assert "Ingress" in spec["policyTypes"]
    assert all(rule["from"] for rule in spec["ingress"])


# --- ray up


def test_ray_accepts_the_launchers_configuration(launcher: dict[str, Any]) -> None:
    head, workers = (launcher["available_node_types"][name] for name in ("head", "gpu_spot"))
    assert launcher["head_node_type"] == "head"
    assert head["max_workers"] == 0
    assert workers["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert workers["resources"]["GPU"] >= 1
    assert 1 <= workers["min_workers"] < workers["max_workers"] <= launcher["max_workers"]
    assert launcher["idle_timeout_minutes"] > 0


def test_the_launcher_installs_the_package_from_what_it_copies(launcher: dict[str, Any]) -> None:
    (folder,) = (remote for remote, local in launcher["file_mounts"].items() if local == ".")
    assert f"pip install {folder}" in launcher["setup_commands"]
    runs = [command for command in commands_in(RAY_UP) if command.split()[1] == "run"]
    sweeps = [Path(parse(command)["sweep_file"]) for command in runs]
    assert sweeps
    assert all((ROOT / sweep.relative_to(folder)).is_file() for sweep in sweeps)


def test_every_head_that_is_started_keeps_its_dashboard_to_itself(launcher: dict[str, Any]) -> None:
    script = re.sub(r"\\\n\s*", "", SLURM.read_text())
    heads = [
        command
        for command in (*launcher["head_start_ray_commands"], *script.splitlines())
        if "ray start --head" in command
    ]
    assert len(heads) == 2
    assert all("--dashboard-host=127.0.0.1" in command for command in heads)


# --- SLURM


def test_the_slurm_script_is_valid_bash() -> None:
    done = run_to_end(["bash", "-n", str(SLURM)])
    assert (done.returncode, done.stderr) == (0, "")


def test_shellcheck_finds_nothing_in_the_slurm_script() -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    done = run_to_end([shellcheck, str(SLURM)])
    assert (done.returncode, done.stdout) == (0, "")


def test_slurm_settings_stand_before_the_first_command() -> None:
    lines = SLURM.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    settings = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert settings
    assert max(settings) < first
    given = {lines[i] for i in settings}
    assert {"#SBATCH --requeue", "#SBATCH --signal=B:TERM@120", "#SBATCH --open-mode=append"} <= given


STAND_INS = {
    "srun": """while [[ "$1" == --* ]]; do shift; done
exec "$@" """,
    "scontrol": """if [[ "$1 $2" == "show hostnames" ]]; then printf '%s\\n' node1 node2
else echo "$*" >> scontrol.log; fi""",
    # A node joins once its `ray start` is on record; the process then stays, as with --block.
    "ray": """case "$1" in
get-auth-token) echo secret ;;
start) echo "$RAY_AUTH_MODE $*" >> started.log; echo $$ >> pids.log; exec sleep 600 ;;
status) awk '{print " 1 node_" NR}' started.log ;;
esac""",
    "specsweep": """if [[ "$1" == events ]]; then echo "$*" > asked.log; cat events.log; exit; fi
echo "$*" > specsweep.log
if [[ -n "${ENDS_WITH:-}" ]]; then exit "$ENDS_WITH"; fi
trap 'echo TERM >> signals.log; exit "$STOPS_WITH"' TERM
echo ready > ready.log
while :; do sleep 0.05; done""",
}


@pytest.fixture
def start_job(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the script in ``tmp_path`` as SLURM would, with stand-ins for all that it calls."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, body in STAND_INS.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (programs / name).chmod(stat.S_IRWXU)
    jobs: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **variables: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "HEAD_IP": "192.0.2.1",
            "SWEEP": "a sweep.yaml",
            "RESULTS": "results",
        }
        job = subprocess.Popen(
            ["bash", str(SLURM), *arguments],
            cwd=tmp_path,
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        jobs.append(job)
        return job

    yield start
    for job in jobs:
        job.kill()
        job.communicate()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def still_running(folder: Path) -> list[int]:
    return [pid for pid in map(int, (folder / "pids.log").read_text().split()) if is_alive(pid)]


def write_events(folder: Path, *events: tuple[str, str, str | None]) -> None:
    """Write events as ``specsweep events`` prints them: trial, kind and cause."""
    (folder / "results").mkdir(exist_ok=True)
    lines = [json.dumps({"trial_id": trial, "kind": kind, "cause": cause}) for trial, kind, cause in events]
    lines.insert(0, json.dumps({"trial_id": None, "kind": "registered"}))
    (folder / "events.log").write_text("\n".join(lines) + "\n")


OWN_FAULT = [("a", "failed", "worker"), ("a", "done", None), ("b", "failed", "node"), ("b", "failed", "diverged")]


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_slurm_job_whose_sweep_ends_by_itself_ends_with_its_code(
    code: int, start_job: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    write_events(tmp_path, *OWN_FAULT)
    job = start_job("--set", "resources.gpus=1", ENDS_WITH=str(code))
    _, err = wait_for_end(job)
    assert (job.returncode, err) == (code, "")
    assert (tmp_path / "specsweep.log").read_text() == (
        "run a sweep.yaml --address 192.0.2.1:20007 --results results --set resources.gpus=1\n"
    )
    started = sorted((tmp_path / "started.log").read_text().splitlines())
    assert len(started) == 2
    assert all(line.startswith("token start ") and line.endswith("--block") for line in started)
    assert "--address=192.0.2.1:20007" in started[0]
    assert "--head --node-ip-address=192.0.2.1 --port=20007" in started[1]
    assert not (tmp_path / "scontrol.log").exists()
    assert still_running(tmp_path) == []


def ports_of(line: str) -> dict[str, int]:
    return {name: int(port) for name, port in re.findall(r"--([a-z-]*port)=(\d+)", line)}


def test_no_node_of_a_slurm_job_takes_a_port_that_another_ray_of_its_machine_has(
    start_job: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    heads = []
    for number in ("7", "4123456"):
        wait_for_end(start_job(ENDS_WITH="0", SLURM_JOB_ID=number))
        worker, head = sorted((tmp_path / "started.log").read_text().splitlines())
        assert ports_of(worker) == {"dashboard-agent-listen-port": 0}
        heads.append(ports_of(head))
        (tmp_path / "started.log").unlink()
    assert heads[0] == {
        "port": 20007,
        "dashboard-port": 30007,
        "ray-client-server-port": 31007,
        "dashboard-agent-listen-port": 0,
    }
    chosen = [port for head in heads for port in head.values() if port]
    assert len(set(chosen)) == 6
    # Neither Ray's own, nor those of its workers (up to 19999), nor those that Linux gives to clients.
    assert all(20000 <= port < 32768 for port in chosen)


@pytest.mark.parametrize(("code", "cause"), [(3, "raised"), (4, "raised"), (1, "worker"), (1, "io")])
def test_a_slurm_job_that_another_try_may_mend_goes_back_into_the_queue_so_often_and_no_oftener(
    code: int, cause: str, start_job: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    write_events(tmp_path, *OWN_FAULT, ("c", "failed", cause))
    arguments = ("--set", "resources.gpus=1", "--slots", "4", "--name", "night")
    for number in range(1, 4):
        job = start_job(*arguments, ENDS_WITH=str(code), MAX_TRIES="2")
        out, err = wait_for_end(job)
        assert (job.returncode, err) == (code, "")
        requeued = (tmp_path / "scontrol.log").read_text().splitlines()
        assert requeued == ["requeue 7"] * min(number, 2)
        assert (f"which another try may mend; back into the queue ({number} of 2)" in out) is (number < 3)
        (tmp_path / "started.log").unlink()
    assert list((tmp_path / "results").iterdir()) == []
    if code == 1:
        assert (tmp_path / "asked.log").read_text() == "events night --results results --set resources.gpus=1\n"


def test_a_slurm_job_near_its_time_limit_stops_the_sweep_once_and_goes_back_into_the_queue(
    start_job: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    job = start_job(STOPS_WITH="130")
    wait_for((tmp_path / "ready.log").exists)
    job.send_signal(signal.SIGTERM)
    _, err = wait_for_end(job)
    assert (job.returncode, err) == (130, "")
    assert (tmp_path / "signals.log").read_text() == "TERM\n"
    assert (tmp_path / "scontrol.log").read_text() == "requeue 7\n"
    assert still_running(tmp_path) == []


@pytest.mark.parametrize("code", [0, 1])
def test_a_sweep_that_ends_while_it_is_stopped_does_not_requeue_its_slurm_job(
    code: int, start_job: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    job = start_job(STOPS_WITH=str(code))
    wait_for((tmp_path / "ready.log").exists)
    job.send_signal(signal.SIGTERM)
    wait_for_end(job)
    assert job.returncode == code
    assert (tmp_path / "signals.log").read_text() == "TERM\n"
    assert not (tmp_path / "scontrol.log").exists()


def test_a_slurm_job_whose_nodes_do_not_join_ends_and_leaves_nothing(
    start_job: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    (tmp_path / "programs" / "srun").write_text("#!/usr/bin/env bash\necho $$ >> pids.log; exec sleep 600\n")
    job = start_job(JOIN_TIMEOUT_S="1")
    _, err = wait_for_end(job)
    assert job.returncode == 1
    assert "0 of 2 nodes have joined Ray at 192.0.2.1:20007" in err
    assert not (tmp_path / "specsweep.log").exists()
    assert still_running(tmp_path) == []


@pytest.mark.parametrize("name", ["SWEEP", "RESULTS"])
def test_a_slurm_job_without_a_setting_says_which(
    name: str, start_job: Callable[..., subprocess.Popen[str]]
) -> None:
    job = start_job(**{name: ""})
    _, err = wait_for_end(job)
    assert job.returncode != 0
    assert f"{name}: set {name} to a " in err


# --- Grafana


def test_the_dashboard_asks_for_exactly_the_metrics_that_a_run_exports(dashboard: dict[str, Any]) -> None:
    asked = {name for expression in expressions(dashboard) for name in re.findall(r"ray_\w+", expression)}
    assert asked == set(METRIC_TAGS)


def test_the_dashboard_filters_and_groups_by_tags_that_the_metrics_have(dashboard: dict[str, Any]) -> None:
    for expression in expressions(dashboard):
        for name, filters in re.findall(r"(ray_\w+)\{([^}]*)\}", expression):
            by = [tag for tags in re.findall(r"by \(([^)]*)\)", expression) for tag in tags.split(", ")]
            used = {*re.findall(r"(\w+)=~", filters), *by}
            assert used - TAGS_OF_RAY <= METRIC_TAGS[name], expression


def test_with_all_chosen_every_panel_shows_also_a_sweep_without_groups(dashboard: dict[str, Any]) -> None:
    exported = {"SessionName": "session_1", "sweep": "components", "group": "", "metric": "miou", "state": "done"}
    chosen = {f"${variable['name']}": variable.get("allValue") for variable in dashboard["templating"]["list"]}
    filters = [pair for text in expressions(dashboard) for pair in re.findall(r'(\w+)=~"([^"]*)"', text)]
    assert {tag for tag, _ in filters} == exported.keys()
    for tag, pattern in filters:
        assert re.fullmatch(chosen.get(pattern, pattern), exported[tag]), (tag, pattern)


def test_a_mean_over_seeds_keeps_sweeps_apart(dashboard: dict[str, Any]) -> None:
    (means,) = [text for text in expressions(dashboard) if text.startswith("avg ")]
    assert means.startswith("avg by (sweep, group, arm) (ray_specsweep_rung_metric{")


def test_the_dashboards_legends_name_tags_that_the_query_keeps(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            kept = {tag for tags in re.findall(r"by \(([^)]*)\)", target["expr"]) for tag in tags.split(", ")}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept, panel["title"]


def test_the_dashboards_variables_are_defined_before_they_are_used(dashboard: dict[str, Any]) -> None:
    defined: set[str] = set()
    for variable in dashboard["templating"]["list"]:
        used = set(re.findall(r"\$\{?(\w+)", json.dumps([variable.get("query"), variable.get("datasource")])))
        assert used <= defined, variable["name"]
        defined.add(variable["name"])
    assert {"datasource", "SessionName", "sweep", "metric"} <= defined
    built_in = {"__all"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard["panels"]))) <= defined | built_in


def test_every_panel_of_the_dashboard_takes_the_chosen_data_source(dashboard: dict[str, Any]) -> None:
    sources = [
        source["datasource"]
        for panel in dashboard["panels"]
        if panel["type"] != "row"
        for source in (panel, *panel["targets"])
    ]
    assert sources
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def test_the_dashboards_panels_lie_on_its_grid_without_overlap(dashboard: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)  # the width of Grafana's grid
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, (a, b)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_dashboard_shows_each_state_of_a_trial_in_a_colour_of_its_own(dashboard: dict[str, Any]) -> None:
    (panel,) = (panel for panel in dashboard["panels"] if panel["title"] == "Trials by state")
    assert panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal"
    colours = {
        override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"]
        for override in panel["fieldConfig"]["overrides"]
    }
    assert set(colours) == {"waiting", "pending", "running", "done", "pruned", "failed", "left_out"}
    assert len(set(colours.values())) == len(colours)
