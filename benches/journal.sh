#!/usr/bin/env bash
# Peak memory of long runs, and what the journal costs.
#
#   benches/journal.sh PROGRAM DATA       DATA: a folder with MNIST's files
#
# Memory: 1 000 and 10 000 test images through the embedded network, in each format. Time: the same
# rows to a file under a journal and to a pipe without one, in alternation; medians of the runs.
set -euo pipefail
program=$(realpath "${1:?}")
data=${2:?}
rounds=${ROUNDS:-7}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
common=(score --dataset mnist --data "$data" --quiet)

echo "format,images,peak_kib"
for format in csv jsonl ${PARQUET-parquet}; do
    for images in 1000 10000; do
        /usr/bin/time -f "$format,$images,%M" "$program" "${common[@]}" --images 0..$images --out "$folder/rows.$format"
        rm "$folder/rows.$format"
    done
done

median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
timed() { local start=$EPOCHREALTIME; "$@"; local end=$EPOCHREALTIME; echo "$end - $start" | bc -l; }
piped() { "$program" "$@" --out - >"$folder/piped.csv"; }
kept() { "$program" "$@" --out "$folder/rows.csv" && rm "$folder/rows.csv"; }
echo "run,seconds_with_journal,seconds_without,ratio"
for kind in "--images 0..2000" "--images 0..60 --perturb layers --filter tikhonov:1:relative"; do
    : >"$folder/with"; : >"$folder/without"
    for _ in $(seq "$rounds"); do
        # shellcheck disable=SC2086
        timed kept "${common[@]}" $kind >>"$folder/with"
        # shellcheck disable=SC2086
        timed piped "${common[@]}" $kind >>"$folder/without"
    done
    with=$(median <"$folder/with"); without=$(median <"$folder/without")
    echo "$kind,$with,$without,$(echo "scale=3; $with / $without" | bc -l)"
done
