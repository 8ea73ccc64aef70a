#!/usr/bin/env bash
# tiny: the same training again, in a new run directory, without fullrank (8 processes).
# Arguments go on to the training:  bash command.sh optimizer.lr=3e-5
set -euo pipefail
export OMP_NUM_THREADS=1
export MASTER_ADDR=127.0.0.1
export MASTER_PORT=22108
export WORLD_SIZE=8
export LOCAL_WORLD_SIZE=8

command=(/env/bin/python -P -m trainers.train \
  --config /runs/tiny/20260101-000000-abcdef/resolved.yaml \
  --strategy /runs/tiny/20260101-000000-abcdef/attempts/0001/accelerate.yaml "$@")

pids=()
for rank in {0..7}; do
  RANK=$rank LOCAL_RANK=$rank "${command[@]}" &
  pids+=("$!")
done

signalled=
trap 'signalled=1; kill -INT "${pids[@]}" 2>/dev/null || true' INT
trap 'signalled=1; kill -TERM "${pids[@]}" 2>/dev/null || true' TERM USR2

# Wait for every rank. 75 and 130 mean that all ranks stop together; any other failure ends the rest at once.
first=0
left=${#pids[@]}
while ((left > 0)); do
  code=0
  wait -n || code=$?
  if [[ -n $signalled ]] && ((code > 128)); then
    signalled= # the signal ended the wait, not a rank
    continue
  fi
  if ((code == 127)) && [[ -z $(jobs -p) ]]; then break; fi
  left=$((left - 1))
  if ((code != 0 && first == 0)); then
    first=$code
    if ((code != 75 && code != 130)); then kill -KILL "${pids[@]}" 2>/dev/null || true; fi
  fi
done
exit "$first"
