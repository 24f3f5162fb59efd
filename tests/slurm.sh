#!/usr/bin/env bash
# A run of 8 parts as a real Slurm array job, one of which is killed and queued again, against the
# run in one piece.
#
#   tests/slurm.sh [PROGRAM]        PROGRAM: the influence to test [default: target/debug/influence]
#
# Starts Slurm's controller and one node on loopback, with a folder of its own, and stops both.
# Needs Debian's slurm-wlm and the right to start slurmd (root); says so and ends well where either
# is missing.
set -euo pipefail
program=$(realpath "${1:-target/debug/influence}")
for tool in slurmctld slurmd sbatch squeue scontrol; do
    command -v $tool >/dev/null || { echo "skipped: no $tool here (apt-get install slurm-wlm)"; exit 0; }
done
[ "$(id -u)" = 0 ] || { echo "skipped: slurmd must be started by root"; exit 0; }

folder=$(mktemp -d)
export SLURM_CONF=$folder/slurm.conf
node=$(hostname -s)
mkdir "$folder/state" "$folder/spool"
cat >"$SLURM_CONF" <<END
ClusterName=influence
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=26817
SlurmdPort=26818
SlurmUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SchedulerParameters=batch_sched_delay=1,sched_interval=1
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    [ -n "${keep:-}" ] && echo "kept: $folder" || rm -rf "$folder"
}
trap finish EXIT
slurmctld -D -f "$SLURM_CONF" 2>/dev/null & pids+=($!)
slurmd -D -f "$SLURM_CONF" -N "$node" 2>/dev/null & pids+=($!)
for _ in $(seq 60); do sinfo -h -o %t 2>/dev/null | grep -q idle && break; sleep 1; done
sinfo -h -o %t | grep -q idle || { keep=1; echo "Slurm has not come up: see its logs"; exit 1; }

# Slow enough for the kill to hit: 12 images per part, in double precision.
run="--perturb tensors --filter tikhonov:1:relative --images 0..96 --precision f64 --quiet"
cat >"$folder/job.sh" <<END
#!/usr/bin/env bash
echo \$\$ >$folder/pid-\$SLURM_ARRAY_TASK_ID
exec $program score $run --threads 1 --shard auto/8 --out $folder/part-\$SLURM_ARRAY_TASK_ID.csv --resume
END
job=$(sbatch --parsable --array=1-8 --cpus-per-task=1 --requeue --output="$folder/%a.log" --chdir="$PWD" \
    "$folder/job.sh")
echo "array job $job of 8 parts on $(nproc) processors"
journal=$folder/part-3.csv.journal
for _ in $(seq 3000); do
    [ -f "$journal" ] && [ "$(wc -l <"$journal")" -ge 2 ] && break
    sleep 0.02
done
kill -9 "$(cat "$folder/pid-3")"
echo "part 3 killed with $(($(wc -l <"$journal") - 1)) records in its journal"
for _ in $(seq 100); do scontrol requeue "${job}_3" 2>/dev/null && break; sleep 0.2; done
echo "part 3 queued again"
for _ in $(seq 300); do [ -z "$(squeue -h -j "$job" 2>/dev/null)" ] && break; sleep 1; done
[ -z "$(squeue -h -j "$job")" ] || { keep=1; echo "the array has not ended"; squeue; exit 1; }
cat "$folder"/[0-9].log >&2
"$program" merge "$folder"/part-*.csv --out "$folder/merged.csv"
"$program" score $run --out "$folder/whole.csv"
cmp "$folder/merged.csv" "$folder/whole.csv"
echo "the merged file has the bytes of the run in one piece: $(wc -c <"$folder/whole.csv")"
