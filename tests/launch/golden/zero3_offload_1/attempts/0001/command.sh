#!/usr/bin/env bash
# tiny: the same training again, in a new run directory, without fullrank (1 process).
# Arguments go on to the training:  bash command.sh optimizer.lr=3e-5
set -euo pipefail
export OMP_NUM_THREADS=8
export PYTHONSAFEPATH=1
exec /env/bin/python -P -m accelerate.commands.launch \
  --config_file /runs/tiny/20260101-000000-abcdef/attempts/0001/accelerate.yaml -m trainers.train \
  --config /runs/tiny/20260101-000000-abcdef/resolved.yaml \
  --strategy /runs/tiny/20260101-000000-abcdef/attempts/0001/accelerate.yaml "$@"
