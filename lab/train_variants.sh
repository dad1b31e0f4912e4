#!/usr/bin/env bash
# Train each variant on one machine, one after the other; an interrupted run continues. From the repository's folder:
#   lab/train_variants.sh DATA [MINUTES [PROCESSES [VARIANT ...]]]
# On a GPU, 12 processes share it by NVIDIA's Multi-Process Service. To rehearse on a CPU: lab/train_variants.sh DATA 1 1
# Packs and runs are in runs/, which git ignores. A pack is made once, with the first run of its variant.
set -euo pipefail
data=$1 minutes=${2:-5} processes=${3:-12}
shift $(($# < 3 ? $# : 3))
variants=("${@:-}")
[ -n "${variants[0]}" ] || variants=(default-regions open)
export OMP_NUM_THREADS=1
device=$(python -c "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')")
if [ "$device" = cuda ] && [ "$processes" -gt 1 ] && nvidia-cuda-mps-control -d; then
    trap 'echo quit | nvidia-cuda-mps-control' EXIT
fi
for variant in "${variants[@]}"; do
    python -m torch.distributed.run --nproc-per-node "$processes" -m medfewshot train "configs/train/$variant.yaml" \
        -o "runs/$variant" --data "$data" --pack "runs/$variant.safetensors" --minutes "$minutes" --device "$device" --resume
    python - "runs/$variant/start/start.json" <<'PY'
import json, sys
record = json.load(open(sys.argv[1], encoding="utf-8"))["record"]
print(sys.argv[1], *(f"{key} {record[key]}" for key in ("steps", "skipped", "seconds", "validation")))
PY
done
