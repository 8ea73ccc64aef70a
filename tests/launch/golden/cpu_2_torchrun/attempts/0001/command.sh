#!/usr/bin/env bash
# tiny: the same training again, in a new run directory, without fullrank (2 processes).
# Arguments go on to the training:  bash command.sh optimizer.lr=3e-5
set -euo pipefail
export OMP_NUM_THREADS=4
export PYTHONSAFEPATH=1
exec /env/bin/python -P -m torch.distributed.run \
  --nnodes 1 \
  --nproc-per-node 2 \
  --master-addr 127.0.0.1 \
  --master-port 22108 -m trainers.train \
  --config /runs/tiny/20260101-000000-abcdef/resolved.yaml \
  --strategy /runs/tiny/20260101-000000-abcdef/attempts/0001/accelerate.yaml "$@"
