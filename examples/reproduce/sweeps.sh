#!/usr/bin/env bash
# Paper B (Zhuang 2020), what its method hangs on: K and M (Table S3), Kp (Table S4), backbones
# (Table 4), neighbours in the batch or in the whole training set (2.2), convergence against the
# traditional triplet loss (Fig. 2), and natural images (Tables S1 and S2).
#
# data      DATA/SD-198 (see sd198.sh) for all parts but `natural`; for Fig. 2, right,
#           DATA/ISIC2018 (see skin7.sh), if it is there; for `natural` any of
#           DATA/stl10_binary       https://cs.stanford.edu/~acoates/stl10/
#           DATA/tiny-imagenet-200  http://cs231n.stanford.edu/tiny-imagenet-200.zip
#           DATA/CUB_200_2011       https://www.vision.caltech.edu/datasets/cub_200_2011/
#           each as unpacked
# licence   SD-198, STL10, Tiny-ImageNet and CUB-200-2011: research only (the images are their
#           owners')
# hardware  one GPU with 16 GB, 16 GB of memory
# time      expected, not measured: on an A100 `neighbours` 12 hours a seed (nine runs), `backbones`
#           10, `bank` 4, `convergence` 3, `natural` two days (Tiny-ImageNet has 100,000 images)
#
# `local.sh` calls this script small: TRAIN_DATA and TEST_DATA name other data, and words after OUT
# are the options of every `patchknn train` instead of the preset's.
#
# Printed, Table S3, SD-198, Acc / MCR in %, Kp = K:
#   M = 1: K = 3 63.7 / 64.5, K = 5 62.4 / 61.6, K = 7 63.4 / 62.6
#   M = 5: K = 3 65.0 / 65.0, K = 5 65.1 / 64.3, K = 7 64.2 / 64.0
#   M = 9: K = 3 64.8 / 63.9, K = 5 63.4 / 62.2, K = 7 64.8 / 63.6
# Printed, Table S4: in sd198.sh, skin7.sh and pneumonia.sh, which make it for their data.
# Printed, Table 4, SD-198, Acc / MCR / RS: kNN on the network trained by cross-entropy, deep kNN
#   VGG19        59.16 / 56.33 / 43.12    61.51 / 61.93 / 45.43
#   ResNet50     60.17 / 57.35 / 46.01    65.12 / 64.34 / 48.31
#   DenseNet121  60.54 / 60.12 / 50.42    64.02 / 65.11 / 52.21
#   SE-ResNet50  61.85 / 59.32 / 50.01    62.79 / 62.27 / 53.12
# Printed, Table S2, Acc at Kp = 1 / 5:
#             kNN (ResNet50)  triplet         deep kNN       weighted CE  deep kNN*
#   STL10     92.39 / 93.32   69.31 / 70.52   95.21 / 96.91  94.06        95.00
#   CUB200    40.75 / 42.47   65.34 / 66.20   74.95 / 75.32  79.3         81.10
#   Tiny200   58.82 / 62.44   67.32 / 73.03   74.32 / 75.32  79.30        80.52
# Fig. 2 shows training accuracy by epoch; here it is that of the images held out.
#
# usage: [PARTS=... SEEDS=... EPOCHS=... JOBS=... WEIGHTS=DIR TRAIN_OPTIONS=...] sweeps.sh DATA [OUT [WORDS...]]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
data=${1:?usage: sweeps.sh DATA [OUT [WORDS...]]}
out=${2:-reproduce-sweeps}
shift "$(($# < 2 ? $# : 2))"
words=("$@")
# shellcheck source-path=SCRIPTDIR source=paper_b.sh
. "$here/paper_b.sh"
read -ra parts <<<"${PARTS:-neighbours votes bank backbones convergence natural}"
read -ra positives <<<"${POSITIVES:-3 5 7}" # K
read -ra negatives <<<"${NEGATIVES:-1 5 9}" # M
read -ra networks <<<"${BACKBONES:-vgg19 resnet50 densenet121 seresnet50}"
bank=${BANK:-50} # batches between two embeddings of the whole training set
epochs=()
[ -z "${EPOCHS:-}" ] || epochs=(--epochs "$EPOCHS")

# settings NETWORK: how to train: the words given, else the preset and a network.
settings() {
  if [ "${#words[@]}" -gt 0 ]; then
    printf '%s\n' "${words[@]}"
  else
    printf '%s\n' --preset paper-b
    backbone "$1"
  fi
}

# run_of PART NAME SEED LOSS...: train with a loss and archive the training images.
run_of() {
  local run=$out/runs/$1/$2/seed$3 seed=$3 how
  shift 3
  mapfile -t how < <(settings "${trunk:-$plain}")
  train "$run" "$train_csv" "${how[@]}" "${own[@]}" "${epochs[@]}" --split none --seed "$seed" "$@" \
    "${train_options[@]}"
  embed "$run" "$train_csv"
}

neighbours() {
  local run=$out/runs/neighbours/K$1-M$2/seed$3
  run_of neighbours "K$1-M$2" "$3" --loss deep-knn --positives "$1" --negatives "$2"
  judge_votes "$run" "$1"
}

votes() {
  run_of neighbours K5-M5 "$1" --loss deep-knn --positives 5 --negatives 5
  judge_votes "$out/runs/neighbours/K5-M5/seed$1" "${votes[@]}"
}

bank() { # METHOD SEED
  local more=()
  [ "$1" = in-batch ] || more=(--bank "$bank")
  run_of bank "$1" "$2" --loss deep-knn "${more[@]}"
  judge_votes "$out/runs/bank/$1/seed$2" 5
}

backbones() { # NETWORK SEED
  local trunk=$1 loss
  for loss in cross-entropy deep-knn; do
    run_of backbones "$loss-$1" "$2" --loss "$loss"
    judge_votes "$out/runs/backbones/$loss-$1/seed$2" 5
  done
}

convergence() { # NAME NETWORK METHOD SEED
  local run=$out/convergence/$1/$3/seed$4 how loss
  case $3 in
    triplet) loss=("${traditional[@]}") ;;
    semi-hard) loss=(--loss triplet --mining semi-hard) ;; # not in the paper, and harder to beat
    *) loss=(--loss "$3") ;;
  esac
  mapfile -t how < <(settings "$2")
  # These runs are looked at by epoch, not kept: the images held out may judge them.
  train "$run" "$train_csv" "${how[@]}" "${own[@]}" "${epochs[@]}" --validation "$test_csv" \
    --seed "$4" "${loss[@]}" "${train_options[@]}"
}

figure() { # NAME NETWORK
  local method seed logs=()
  for method in deep-knn triplet semi-hard; do
    for seed in "${seeds[@]}"; do
      start convergence "$1" "$2" "$method" "$seed"
      logs+=("$method=$out/convergence/$1/$method/seed$seed/encoder/training.csv")
    done
  done
  all_done
  "$PYTHON" "$here/figures.py" convergence "${logs[@]}" --output "$out/convergence-$1.png"
}

# sweep_data: the data of all parts but the natural images; `own` are options that go with them.
sweep_data() {
  if [ -n "${TRAIN_DATA:-}" ]; then
    train_csv=$TRAIN_DATA test_csv=${TEST_DATA:?TRAIN_DATA needs TEST_DATA} own=()
    no_less "$train_csv" "$test_csv"
    return
  fi
  no_less "$data/SD-198/images"
  own=(--step-epochs 30)
  [ -s "$out/data/sd198/test.csv" ] ||
    "$PYTHON" "$here/prepare.py" sd198 "$data/SD-198" "$out/data/sd198"
  of_data sd198
}

natural() {
  local pair name folder any=false
  for pair in stl10=stl10_binary tiny-imagenet=tiny-imagenet-200 cub200=CUB_200_2011; do
    name=${pair%=*} folder=$data/${pair#*=}
    [ -d "$folder" ] || { say "$folder is not there: left out."; continue; }
    any=true
    "$PYTHON" "$here/prepare.py" "$name" "$folder" "$out/data/$name"
    METHODS=${METHODS:-knn-$plain triplet deep-knn weighted-ce deep-knn-star} \
      all_of_table_2 "$name" "${epochs[@]}"
  done
  [ "$any" = true ] || no_less "$data/stl10_binary"
}

for part in "${parts[@]}"; do
  say "part $part"
  [ "$part" = natural ] || sweep_data
  for seed in "${seeds[@]}"; do
    case $part in
      neighbours)
        for k in "${positives[@]}"; do
          for m in "${negatives[@]}"; do start neighbours "$k" "$m" "$seed"; done
        done ;;
      votes) all_done; start votes "$seed" ;; # looks at a run of `neighbours`
      bank) for name in in-batch "every-$bank"; do start bank "$name" "$seed"; done ;;
      backbones) for name in "${networks[@]}"; do start backbones "$name" "$seed"; done ;;
    esac
  done
  all_done
  case $part in
    neighbours | votes | bank | backbones) ;;
    convergence)
      name=sd198
      [ -z "${TRAIN_DATA:-}" ] || name=local
      figure "$name" "$plain"
      if [ -z "${TRAIN_DATA:-}" ] && [ -d "$data/ISIC2018" ]; then
        "$PYTHON" "$here/prepare.py" skin7 "$data/ISIC2018" "$out/data/skin7"
        of_data skin7
        own=(--classes-per-batch 7 --per-class 14)
        figure skin7 "${FIGURE_BACKBONE:-densenet121}"
      fi ;;
    natural) natural ;;
    *) say "PARTS: $part is unknown."; exit 2 ;;
  esac
done

[ ! -d "$out/runs" ] || {
  "$PYTHON" "$here/table.py" "$out/runs" --all --output "$out"
  cat "$out/table.md"
}
ended
