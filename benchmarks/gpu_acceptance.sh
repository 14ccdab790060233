#!/usr/bin/env bash
# Everything that only a GPU can show, in at most ten minutes and without a network; writes a dated page.
#
#   benchmarks/gpu_acceptance.sh [PYTHON]        # PYTHON: an interpreter with the packages of requirements.lock
#   DEVICE=cpu benchmarks/gpu_acceptance.sh      # a rehearsal on a CPU: small sizes, the same commands
#
# A part that fails or runs over its time is named, and the others still run; the exit code is the number of those.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${1:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
device=${DEVICE:-cuda}
name=$("$python" -c "import torch; print(torch.cuda.get_device_name() if '$device' == 'cuda' else 'rehearsal on a CPU')") || exit 1
page=${OUT:-benchmarks}/gpu-acceptance_$(echo "$name" | tr -cs 'A-Za-z0-9' '-' | sed 's/-$//')_$(date +%F).md
mkdir -p "$(dirname "$page")"
figures=$(mktemp -d)
failed=0
patience=$([ "$device" = cuda ] && echo 1 || echo 10)

part() { # title, seconds, command ...
  local title=$1 limit=$(($2 * patience)) start=$SECONDS code=0
  shift 2
  printf '\n## %s\n```\n$ %s\n' "$title" "${*/#$python/python}" | tee -a "$page"
  timeout -k 5 "$limit" "$@" 2>&1 | grep -v '^$' | tail -60 | tee -a "$page"
  code=${PIPESTATUS[0]}
  printf '```\n' | tee -a "$page"
  if [ "$code" = 0 ]; then
    echo "passed, $((SECONDS - start)) s" | tee -a "$page"
  else
    failed=$((failed + 1))
    echo "**FAILED** with code $code after $((SECONDS - start)) s (124: over its $limit s)" | tee -a "$page"
  fi
}

{
  echo "# GPU acceptance: $name, $(date +%F)"
  echo "commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), $("$python" -c 'import torch, torchvision; print("torch", torch.__version__, "torchvision", torchvision.__version__)')"
} | tee "$page"

# In the order of what is missed most if the time runs out.
if [ "$device" = cuda ]; then
  part "Tests that need a GPU: golden losses in fp32 and bf16, SyncBN and DDP, device views, kNN and embedding beside the CPU" 150 \
    "$python" -m pytest -q -m gpu -p no:cacheprovider
  resnet=(--batch-size 256 --compile on --seconds 3) cifar=(--batch-size 512 --seconds 2) knn=() boxes=(--batch 8 --steps 3) masks=(--batch 8 --steps 3)
else
  part "Golden losses" 150 "$python" -m pytest -q -p no:cacheprovider tests/pretraining/test_golden.py
  resnet=(--batch-size 2 --seconds 0.1 --rounds 1) cifar=(--batch-size 16 --seconds 0.1 --rounds 1) knn=(--references 4096 --queries 512 --rounds 1)
  boxes=(--batch 1 --steps 1) masks=(--batch 2 --steps 1)
fi
part "ResNet-50 at 224 px, bf16: the step beside a plain fp32 loop, under torch.compile, and beside a bare matrix product; views" 180 \
  "$python" -m simsiam bench --recipe resnet50_8xb32-coslr-100e --precision bf16 --device "$device" --out "$figures/resnet50" "${resnet[@]}"
part "CIFAR ResNet-18, batch 512, bf16: seconds an epoch of the step (2 s is the goal on an H200)" 90 \
  "$python" -m simsiam bench --recipe cifar10 --precision bf16 --device "$device" --epoch 50000 --out "$figures/cifar10" "${cifar[@]}"
part "kNN beside the bare matrix product" 60 "$python" benchmarks/knn.py --device "$device" "${knn[@]}"
part "A detection step, Mask R-CNN FPN" 60 \
  "$python" benchmarks/detection_step.py --recipe mask_rcnn_r50_fpn_mstrain_1x_coco --device "$device" "${boxes[@]}"
part "A segmentation step, FCN at 512 px" 60 \
  "$python" benchmarks/segmentation_step.py --recipe segmentation-voc12aug --device "$device" "${masks[@]}"

printf '\n%s of the parts failed; %s s in all.\n' "$failed" "$SECONDS" | tee -a "$page"
exit "$failed"
