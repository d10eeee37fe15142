#!/bin/bash
# Shards as a job of a running Ray cluster, submitted through its dashboard.
#
#     RAY_API_SERVER_ADDRESS=http://head:8265 OUT=/data/shards/kinetics400-glcm \
#         bash jobs/shards-ray-job.sh --dataset kinetics --root /data/raw/kinetics400
#
# Submit from the checkout, with a `ray[default]` here and on the cluster's head. The checkout is sent
# along; the cluster's nodes need the packages of requirements.lock, and see root and OUT under these
# names. What stands behind the script's name goes to `python -m pipeline shards`. PYTHON names the
# cluster's interpreter. Ends with 0 if all shards are there; submitting again goes on.
#
# Whoever reaches the dashboard's port can run programs on the cluster: keep it off public networks.

set -euo pipefail

: "${RAY_API_SERVER_ADDRESS:?name the dashboard: RAY_API_SERVER_ADDRESS=http://head:8265}"
: "${OUT:?name the output folder: OUT=/data/shards/NAME}"
cd "$(dirname "$0")/.."

exec ray job submit --address "$RAY_API_SERVER_ADDRESS" --working-dir . -- \
    "${PYTHON:-python}" -m pipeline shards --out "$OUT" "$@"
