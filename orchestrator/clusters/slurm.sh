#!/usr/bin/env bash
# Which component gains from its own [CLS] weights? Or any other sweep, on the nodes of one SLURM job, again and again
# until it is done: shortly before the time limit the sweep is stopped and the job requeued, and goes on from there. It
# is requeued, MAX_TRIES times at most, too where another try may mend what ended it: another run held the results (3),
# the cluster was gone, a disk full (4), or trials failed (1) for want of a disk, a device, memory or a machine.
#
# Needs:     this package in the environment from which the job is submitted, on all nodes; one file system for
#            $RESULTS on all nodes (NFS, Lustre, ..); a cluster that permits requeueing. The ledger lies on the disk of
#            the first node, below ~/.cache or, where homes are shared, $TMPDIR, and is mirrored to $RESULTS every 30 s.
#            Edit the numbers of nodes, GPUs and CPUs, and the time.
# Command:   SWEEP=sweeps/components.yaml RESULTS=$PWD/results sbatch slurm.sh --set resources.gpus=1
#            (what follows slurm.sh is handed on to `specsweep run`)
# Watch:     tail -f specsweep-JOB.log
#            specsweep status components --results results --follow
#            squeue --me --format '%i %N'        # the first node is the head; the dashboard is on its localhost,
#            ssh -L 8265:127.0.0.1:PORT HEAD     # at a port that the log names; then http://127.0.0.1:8265, and
#                                                # `ray get-auth-token` prints the token
# Stop:      scancel JOB                         # submit again, and the sweep goes on
#            scancel --batch --signal=TERM JOB   # give the nodes back now, and wait in the queue to go on
#
# Security:  the dashboard listens on the head's localhost; Ray asks for the token, the same on all nodes. It lies in
#            ~/.ray/auth_token, readable for its owner. Where nodes do not share home folders, put it into a file
#            that they do share (mode 600) and set RAY_AUTH_TOKEN_PATH to it.
#
# Validated: by shellcheck, and on one machine with stand-ins of srun and scontrol and two Ray nodes (2.60): start, end,
#            stop, requeue, and going on. Not run: no SLURM cluster was at hand.
#
#SBATCH --job-name=specsweep
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=specsweep-%j.log

set -euo pipefail

: "${SWEEP:?set SWEEP to a sweep file}"
: "${RESULTS:?set RESULTS to a folder that all nodes share}"
JOIN_TIMEOUT_S="${JOIN_TIMEOUT_S:-300}"
MAX_TRIES="${MAX_TRIES:-3}"
tries_file="$RESULTS/.slurm-$SLURM_JOB_ID.tries"

export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export RAY_DASHBOARD_ENABLE_PROFILING=1 RAY_ENABLE_RECORD_ACTOR_TASK_LOGGING=1  # stack traces; a log for each trial
if [[ -z "${RAY_AUTH_TOKEN_PATH:-}" ]]; then
    (umask 077 && ray get-auth-token --generate >/dev/null)
fi

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# This script runs on the first node. Where it has several networks, HEAD_IP says which one Ray is to use.
head="${HEAD_IP:-$(hostname --all-ip-addresses | cut -d' ' -f1)}"
port="${RAY_PORT:-$((20000 + SLURM_JOB_ID % 10000))}"
# Another Ray of the machine, of another job or user, may have Ray's own ports (8265, 10001, 52365). Without the second
# the head ends; without the third a node has no logs, stack traces and metrics. 0: any that is free.
agent_port=0
dashboard_port=$((30000 + SLURM_JOB_ID % 1000))
client_port=$((31000 + SLURM_JOB_ID % 1000))

sweep_pid=""
ray_pids=()
stopping=0
interrupted=0

# shellcheck disable=SC2329  # called by the trap below
on_term() {
    stopping=1
    interrupted=1
    if [[ -n "$sweep_pid" ]]; then
        kill -TERM "$sweep_pid" 2>/dev/null || true
    fi
}

stop_ray() {
    if ((${#ray_pids[@]})); then
        kill -TERM "${ray_pids[@]}" 2>/dev/null || true
        wait "${ray_pids[@]}" 2>/dev/null || true
    fi
}

# One Ray a node. Steps share the job's resources (--overlap): the last word on them is Ray's.
on_node() {
    local node="$1"
    shift
    srun --overlap --nodes=1 --ntasks=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --nodelist="$node" "$@" &
    ray_pids+=("$!")
}

# Whether a trial failed, at last, for a reason that may be gone by now; the arguments are those of `specsweep run`.
may_pass() {
    local target="$SWEEP" sets=()
    while (($#)); do
        case "$1" in
            --set | --name)
                if [[ "$1" == --set ]]; then sets+=(--set "$2"); else target="$2"; fi
                shift
                ;;
            --set=*) sets+=("$1") ;;
            --name=*) target="${1#--name=}" ;;
        esac
        shift
    done
    specsweep events "$target" --results "$RESULTS" ${sets[@]+"${sets[@]}"} | python3 -c '
import json, sys

passing = {"io", "device", "gpu_memory", "host_memory", "worker", "stalled", "node"}
last = {event["trial_id"]: event for event in map(json.loads, sys.stdin) if event["trial_id"]}
sys.exit(not any(event["kind"] == "failed" and event["cause"] in passing for event in last.values()))
'
}

num_nodes() {
    ray status --address "$head:$port" 2>/dev/null | grep -c ' node_' || true
}

trap on_term TERM
trap stop_ray EXIT

on_node "${nodes[0]}" ray start --head --node-ip-address="$head" --port="$port" --dashboard-host=127.0.0.1 \
    --dashboard-port="$dashboard_port" --ray-client-server-port="$client_port" \
    --dashboard-agent-listen-port="$agent_port" --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --block
for node in "${nodes[@]:1}"; do
    on_node "$node" ray start --address="$head:$port" --dashboard-agent-listen-port="$agent_port" \
        --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --block
done

# A sweep takes the nodes that are there when it starts.
deadline=$((SECONDS + JOIN_TIMEOUT_S))
while (($(num_nodes) < ${#nodes[@]})) && ((!stopping)); do
    if ((SECONDS >= deadline)); then
        echo "after $JOIN_TIMEOUT_S s, $(num_nodes) of ${#nodes[@]} nodes have joined Ray at $head:$port" >&2
        exit 1
    fi
    sleep 2
done

code=130
if ((!stopping)); then
    specsweep run "$SWEEP" --address "$head:$port" --results "$RESULTS" "$@" &
    sweep_pid=$!
    while :; do
        interrupted=0
        code=0
        wait "$sweep_pid" || code=$?
        # A signal ends `wait`, not the sweep: wait for it again.
        ((interrupted)) || break
    done
fi

stop_ray
ray_pids=()
# 130: stopped, to be continued.
if ((stopping && code == 130)); then
    echo "stopped before the end; back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
    exit "$code"
fi
# Any other code is the sweep's own end; where it may be another one the next time, it is tried a few times.
if ((!stopping && (code == 3 || code == 4))) || { ((!stopping && code == 1)) && may_pass "$@"; }; then
    tries=$(($(cat "$tries_file" 2>/dev/null || echo 0) + 1))
    if ((tries <= MAX_TRIES)) && echo "$tries" >"$tries_file"; then
        echo "ended with code $code, which another try may mend; back into the queue ($tries of $MAX_TRIES)"
        scontrol requeue "$SLURM_JOB_ID"
        exit "$code"
    fi
fi
rm -f "$tries_file"
exit "$code"
