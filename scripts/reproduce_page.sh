#!/bin/sh
# The model zoo page from images to finished tables: pre-training, every protocol, the report and the page.
#
#   scripts/reproduce_page.sh [DATA] [RUNS]          # default: data and runs
#
# DATA holds the sets under their usual names: imagenet/ (train/, val/), VOCdevkit/ (VOC2007/, VOC2012/ with
# SegmentationClassAug/), iNaturalist2018/, Places205/, coco/, cityscapes/. A set that is not there is skipped and its cells
# stay marked; imagenet/1percent.txt and 10percent.txt add the semi-supervised rows.
#
# Settings, from the environment:
#   RECIPE     resnet50_8xb32-coslr-100e, or resnet50_8xb32-coslr-200e for the page's second row
#   LAUNCH     torchrun: GPUS processes on this machine; slurm: jobs through `simsiam submit`, each after the pre-training;
#              plain: one process (one GPU, or the CPU)
#   GPUS NODES HOURS PARTITION   of the jobs; NODES is for slurm
#   SIZE       full; tiny: a small network and short schedules, to try all of it on tiny data of the same formats
#   FLAGS      for every command that computes, such as "--device cpu --workers 0"
#   DRY_RUN=1  print the commands and run none
#
# The same command resumes an interrupted run: finished parts are found and not measured twice.
set -eu
DATA=${1:-data}
RUNS=${2:-runs}
RECIPE=${RECIPE:-resnet50_8xb32-coslr-100e}
LAUNCH=${LAUNCH:-torchrun}
GPUS=${GPUS:-8}
NODES=${NODES:-1}
HOURS=${HOURS:-48}
SIZE=${SIZE:-full}
FLAGS=${FLAGS:-}
RUN=$RUNS/$RECIPE
AFTER=
JOBS=
COUNT=0
FAILED=
SKIPPED=

show() {
    printf '+ %s\n' "$*"
    [ -n "${DRY_RUN:-}" ] || "$@"
}

skip() {
    SKIPPED="$SKIPPED
  $1"
}

submit() { # GPUS NODES VERB...
    gpus=$1 nodes=$2
    shift 2
    set -- simsiam submit --gpus "$gpus" --nodes "$nodes" --hours "$HOURS" ${PARTITION:+--partition "$PARTITION"} \
        ${AFTER:+--after $AFTER} -- "$@"
    printf '+ %s\n' "$*"
    if [ -n "${DRY_RUN:-}" ]; then
        COUNT=$((COUNT + 1)) JOBS="$JOBS JOB$COUNT"
        return 0
    fi
    said=$("$@")
    echo "$said"
    JOBS="$JOBS $(printf '%s\n' "$said" | sed -n 's/^job \([^:]*\):.*/\1/p')"
}

many() { # VERB...: on all devices
    case $LAUNCH in
        torchrun) show torchrun --nproc-per-node "$GPUS" -m simsiam "$@" ;;
        slurm) submit "$GPUS" "$NODES" "$@" ;;
        plain) show simsiam "$@" ;;
        *)
            echo "LAUNCH=$LAUNCH: torchrun, slurm or plain" >&2
            exit 2
            ;;
    esac
}

one() { # VERB...: on one device
    if [ "$LAUNCH" = slurm ]; then submit 1 1 "$@"; else show simsiam "$@"; fi
}

write() { # VERB...: without a device
    if [ "$LAUNCH" = slurm ]; then submit 0 1 "$@"; else show simsiam "$@"; fi
}

failed() { # CODE NAME: the others continue, unless it was interrupted
    [ "$1" -lt 128 ] || exit "$1"
    FAILED="$FAILED $2"
}

evaluate() { # one|many NAME SET FLAGS...
    how=$1 name=$2 place=$DATA/$3
    shift 3
    if [ ! -e "$place" ] && [ -z "${DRY_RUN:-}" ]; then
        skip "$name: no $place"
        return 0
    fi
    "$how" evaluate "$name" "$RUN" --data "$place" "$@" $(tiny "$name") $FLAGS || failed $? "$name"
}

# What makes each part small enough for minutes on a CPU. The numbers that come out mean nothing; the way is the same.
tiny() {
    [ "$SIZE" = tiny ] || return 0
    heads="--epochs 1 --batch-size 16 --resize 36 --test-resize 36 --size 32 --expected-classes None"
    case $1 in
        pretrain)
            echo "--views.size 32 --model.backbone resnet10 --model.width 8 --model.projector-dim 32"
            echo "--model.projector-hidden 32 --model.predictor-dim 8 --epochs 1 --batch-size 16 --monitor-images 16"
            ;;
        knn) echo "--resize 36 --size 32" ;;
        svm-voc07 | low-shot-voc07) echo "--costs 0.1 1" ;;
        detection-*)
            echo "--iterations 4 --batch-size 2 --expected-classes None"
            for part in train test; do
                echo "--$part-images.short-sides 64 --$part-images.long-side 64"
                echo "--architecture.rpn.$part.before-nms 60 --architecture.rpn.$part.kept 30"
            done
            ;;
        segmentation-*)
            echo "--size 32 --iterations 4 --evaluate-every 4 --batch-size 4 --head-channels 8 --auxiliary-channels 4"
            ;;
        linear-* | inaturalist2018 | places205 | semi-supervised) echo "$heads" ;;
    esac
}

code=0
many pretrain "$DATA/imagenet" --recipe "$RECIPE" --out "$RUN" $(tiny pretrain) $FLAGS || code=$?
case $code in
    0) ;;
    4) echo "the training collapsed in part; its figures below are those of such a network" >&2 ;;
    *) exit "$code" ;;
esac
AFTER=$JOBS

evaluate one knn imagenet
evaluate one svm-voc07 VOCdevkit
evaluate one low-shot-voc07 VOCdevkit
evaluate many linear-mhead imagenet
evaluate many linear-avgpool imagenet
evaluate many inaturalist2018 iNaturalist2018
evaluate many places205 Places205
for percent in 1 10; do
    list=$DATA/imagenet/${percent}percent.txt
    if [ -e "$list" ]; then
        evaluate many semi-supervised imagenet --part "$list" --recipe "resnet50_4xb64-steplr-20e_in1k-${percent}pct"
    else
        skip "semi-supervised, $percent %: no $list"
    fi
done
evaluate many detection-voc0712 VOCdevkit
evaluate many detection-coco coco
evaluate many segmentation-voc12aug VOCdevkit
evaluate many segmentation-cityscapes cityscapes

AFTER=$JOBS
write report "$RUN" --out "$RUNS/tables"
write zoo page "$RUN" --out "$RUNS/model_zoo.md"
write zoo page "$RUN" --out "$RUNS/model_zoo.html"
[ -z "$SKIPPED" ] || printf 'skipped:%s\n' "$SKIPPED"
if [ -n "$FAILED" ]; then
    echo "failed:$FAILED (mend it and give the same command again)" >&2
    exit 1
fi
