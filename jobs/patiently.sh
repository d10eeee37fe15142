#!/bin/bash
# Runs a command, and again while it ends with 4 (the output is locked by another job): after the loss
# of its machine a job goes on elsewhere, where its own former lock counts for ten minutes more.
#
#     bash jobs/patiently.sh python -m pipeline shards ...

for try in {1..13}; do
    "$@"
    code=$?
    [[ $code -eq 4 && $try -lt 13 ]] || exit "$code"
    sleep "${LOCK_WAIT_SECONDS:-60}"
done
