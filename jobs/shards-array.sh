#!/bin/bash
# Shards by a Slurm job array, without Ray: TASKS independent tasks, then one that writes the index.
#
#     OUT=/data/shards/kinetics400-glcm TASKS=64 bash jobs/shards-array.sh \
#         --dataset kinetics --root /data/raw/kinetics400
#
# Submit from the checkout, after `make setup`; checkout, root and OUT lie on a disk that all nodes
# see. What stands behind the script's name goes to `python -m pipeline shards`. Every task looks at
# the whole data set first; where that takes long, do it once (make manifest) and give --manifest FILE.
# SBATCH_... variables, such as SBATCH_PARTITION and SBATCH_ACCOUNT, hold for both jobs. While it
# runs: python -m pipeline status OUT. Calling it again makes what is missing.

set -euo pipefail

: "${OUT:?name the output folder: OUT=/data/shards/NAME bash jobs/shards-array.sh ...}"
tasks=${TASKS:-16}
[[ $tasks =~ ^[1-9][0-9]*$ ]] || { echo "TASKS is '$tasks'; expected a number of tasks, such as 64" >&2; exit 2; }
export OUT
here=$(dirname "$0")

array=$(sbatch --parsable --array "0-$((tasks - 1))" "$here/shards-array.sbatch" "$@")
array=${array%%;*}  # a federation adds its cluster's name
last=$(sbatch --parsable --dependency "afterany:$array" "$here/shards-finalize.sbatch")
echo "job array $array makes the shards, job ${last%%;*} the index; squeue --me shows them"
