#!/bin/sh
# The rows of docs/results.md: a backbone of the recipe `demo` and its untrained twin on CIFAR-10 and Fashion-MNIST.
#
#   simsiam pretrain --recipe demo --out runs/demo && PATH="$PWD/.venv/bin:$PATH" scripts/worked_example.sh runs/demo
#
# Fashion-MNIST is left out where it cannot be found (Debian's package dataset-fashion-mnist, or FASHION=FOLDER).
set -eu
RUN=${1:-runs/demo}
OUT=${2:-runs/worked-example}
FASHION=${FASHION:-fashion-mnist}

measure() { # NAME SET FLAGS...
    name=$1 set=$2
    shift 2
    simsiam evaluate "$name" "$RUN" "random:$RUN" --data "$set" --out "$OUT/$name-$(basename "$set")" "$@"
}

measure knn cifar10
measure linear-mhead cifar10 --epochs 10 --milestones 4 8
measure probe cifar10
measure svm-voc07 cifar10 --recipe svm_pooled
measure low-shot-voc07 cifar10 --layers pooled --layer pooled
measure retrieval cifar10
measure clustering cifar10
if measure knn "$FASHION"; then
    measure probe "$FASHION"
    measure svm-voc07 "$FASHION" --recipe svm_pooled
fi
simsiam report "$OUT" --rows ours --out "$OUT/tables"
