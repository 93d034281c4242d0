#!/usr/bin/env bash
# Every method on small local data, three seeds: the tables and figures of "Local results".
#
# data      PATCHKNN_DATA (default: ../shared/data beside the checkout) with
#           colon_cells/{train,val}/manifest.csv  nucleus patches of colon, patients apart
#           chest_xray/train/{NORMAL,PNEUMONIA}   split here by the patient in the file name
#           lc25000_colon/{train,val}, groups.csv split by source tile: a check, nearly saturated
#           weights/mobilenetv2_100_tflite_imagenet.f32.safetensors
# licence   colon_cells: derived from CRCHistoPhenotypes, research only; chest_xray: Kermany 2018,
#           CC BY 4.0; lc25000_colon: LC25000 (Borkowski 2019); weights: Apache-2.0
# hardware  two CPU cores and 4 GB; a GPU, where there is one, also fine-tunes on chest_xray
# time      on two cores, two runs beside each other, 9 to 15 minutes a method and seed of colon_cells
#           (peers and two-tasks 30), 1 to 2 of lc25000_colon and of chest_xray, 30 for the sweeps. It
#           may be stopped and started again; a part is chosen by the variables below
#
# chest_xray trains an MLP on frozen features; chest_xray_115 has 115 NORMAL among all PNEUMONIA,
# which is the imbalance of Skin-7. The validation images choose nothing: every run keeps its last
# epoch.
#
# usage: [DATASETS=... METHODS=... SEEDS=... EPOCHS=... JOBS=...] local.sh [OUT]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

out=${1:-reproduce-local}
data=${PATCHKNN_DATA:-$here/../../../shared/data}

read -ra datasets <<<"${DATASETS:-colon_cells chest_xray chest_xray_115 lc25000_colon}"
# METHOD-star goes on from the cross-entropy encoder. METHOD-8 is that method's encoder with features
# averaged over the eight flips and turns of an image (embed --orientations 8). two-tasks is
# multitask on colon_cells/{train,extra} at once: extra's 10,384 images of other patients have other
# classes. METHOD-ce has a classification beside the metric loss. Also: deep-knn-ce, triplet-ce (easy
# positive), nca, lmnn and knn (these on frozen features; the first two install scikit-learn below
# 1.8 and metric-learn into an environment of their own), peer-hard, peer-none (all triplets),
# peer-cross-entropy-balanced and peer-easy-positive-shuffled (the batches of the other).
read -ra methods <<<"${METHODS:-frozen cross-entropy triplet triplet-hard \
  peer-cross-entropy peer-easy-positive peer-semi-hard multitask deep-knn deep-knn-star \
  deep-knn-ce-star two-tasks cross-entropy-8 multitask-8 deep-knn-star-8 deep-knn-ce-star-8 \
  two-tasks-8 peer-easy-positive-8}"
read -ra seeds <<<"${SEEDS:-0 1 2}"
mlp_epochs=${MLP_EPOCHS:-20}
# More words for every `patchknn train`, of images and of stored features.
read -ra train_options <<<"${TRAIN_OPTIONS:-}"
# 1: also the sweeps (SWEEP_EPOCHS, SWEEP_SEEDS) and figures.
extras=${EXTRAS:-1}

# The network, as patchknn and peer.py are told it; its weights carry identity batch norm (folded),
# so batch norm keeps its statistics.
weights=${WEIGHTS_FILE:-$data/weights/mobilenetv2_100_tflite_imagenet.f32.safetensors}
network=(--backbone mobilenetv2_100 --model-arg pad_type=same --mean 0.5 --std 0.5)
[ -z "${BACKBONE_OPTIONS:-}" ] || read -ra network <<<"$BACKBONE_OPTIONS"

# describe DATASET: its kind (images or features), its manifests, and how it is trained on.
describe() {
  kind=images size=64 augment=tissue epochs=${EPOCHS:-20} extra_csv=
  train_csv=$out/data/$1/train.csv test_csv=$out/data/$1/test.csv
  case $1 in
    colon_cells)
      train_csv=$data/colon_cells/train/manifest.csv test_csv=$data/colon_cells/val/manifest.csv
      extra_csv=$data/colon_cells/extra/manifest.csv ;;
    lc25000_colon) epochs=${EPOCHS:-5} ;;
    chest_xray | chest_xray_115) kind=features size=128 ;;
    chest_xray_finetuned) size=128 augment=flip ;;
    *) say "DATASETS: $1 is unknown."; exit 2 ;;
  esac
  size=${SIZE:-$size}
}

# prepare DATASET: manifests of what has none.
prepare() {
  case $1 in
    colon_cells) no_less "$data/colon_cells/train/manifest.csv" "$data/colon_cells/val/manifest.csv" ;;
    lc25000_colon) "$PYTHON" "$here/prepare.py" lc25000 "$data/lc25000_colon" "$out/data/$1" ;;
    chest_xray | chest_xray_finetuned)
      "$PYTHON" "$here/prepare.py" chest-xray "$data/chest_xray/train" "$out/data/$1" ;;
    chest_xray_115)
      "$PYTHON" "$here/prepare.py" chest-xray "$data/chest_xray/train" "$out/data/$1" \
        --keep "NORMAL=${KEEP:-115}" ;;
  esac
}

# told METHOD: how patchknn, or peer.py, is told to train, as the array words.
told() {
  case $1 in
    cross-entropy | multitask | deep-knn | deep-knn-star) words=(--loss "${1%-star}") ;;
    triplet | triplet-star) words=(--loss triplet) ;; # semi-hard
    deep-knn-ce | deep-knn-ce-star) words=(--loss deep-knn --w-ce 1) ;;
    triplet-ce | triplet-ce-star) words=(--loss triplet --mining easy-positive --w-ce 1) ;;
    triplet-hard | triplet-hard-star) words=("${traditional[@]}") ;;
    peer-cross-entropy) words=(--triplet-weight 0) ;;
    peer-cross-entropy-balanced) words=(--triplet-weight 0 --batches balanced) ;;
    peer-easy-positive-shuffled) words=(--miner easy-positive --batches shuffled) ;;
    peer-easy-positive | peer-semi-hard | peer-hard | peer-none) words=(--miner "${1#peer-}") ;;
    frozen | two-tasks | *-8 | nca | lmnn | knn) words=() ;;
    *) say "METHODS: $1 is unknown."; exit 2 ;;
  esac
}

# on_images RUN DATASET METHOD SEED: the network is trained.
on_images() {
  local run=$1 method=$3 options words
  describe "$2"
  told "$method"
  options=(--split none --size "$size" --seed "$4" "${train_options[@]}")
  case $method in
    *-8)
      take_over "$run" "$out/runs/$2/${method%-8}/seed$4"
      finish "$run" --orientations 8
      return ;;
    frozen) train "$run" "$train_csv" "${network[@]}" --weights "$weights" --loss none "${options[@]}" ;;
    peer-*)
      say "peer      $run"
      mkdir -p "$run"
      logged "$run" "$PYTHON" "$here/peer.py" images "$train_csv" "${network[@]}" \
        --weights "$weights" --size "$size" --seed "$4" --epochs "$epochs" "${words[@]}" \
        --output "$run/peer.safetensors" >>"$run/log"
      train "$run" "$train_csv" "${network[@]}" --weights "$run/peer.safetensors" --loss none "${options[@]}" ;;
    *-star)
      train "$run" "$train_csv" --from "$out/runs/$2/cross-entropy/seed$4/encoder" \
        "${words[@]}" --augment "$augment" --epochs "$epochs" "${options[@]}" ;;
    two-tasks)
      # An epoch is one of extra, in which each image of train comes round three times or more.
      no_less "$extra_csv"
      train "$run" --task "types=$train_csv" --task "extra=$extra_csv" "${network[@]}" \
        --weights "$weights" --loss multitask --augment "$augment" \
        --epochs $(((epochs * 3 + 9) / 10)) "${options[@]}" ;;
    *)
      train "$run" "$train_csv" "${network[@]}" --weights "$weights" "${words[@]}" \
        --augment "$augment" --epochs "$epochs" "${options[@]}" ;;
  esac
  finish "$run"
}

# on_features RUN DATASET METHOD SEED: an MLP is trained on features of the network as it is. Saved
# behind the network, it takes images as any encoder does.
on_features() {
  local run=$1 method=$3 stored words
  stored=$out/runs/$2/frozen/seed${seeds[0]}
  describe "$2"
  told "$method"
  case $method in
    frozen) on_images "$@"; return ;;
    peer-*) ;;
    *)
      [[ $method != *-star ]] || words+=(--from "$out/runs/$2/cross-entropy/seed$4/encoder")
      train "$run" "$stored/archive" --features "${words[@]}" --split none \
        --seed "$4" --epochs "$mlp_epochs" "${train_options[@]}"
      finish "$run"
      return ;;
  esac
  # The peer's MLP is no encoder: its features are judged by kNN alone.
  [ ! -s "$run/knn.ndjson" ] || return 0
  say "peer      $run"
  mkdir -p "$run"
  logged "$run" "$PYTHON" "$here/peer.py" features "$out/features/$2/train.npz" \
    "$out/features/$2/test.npz" --epochs "$mlp_epochs" --seed "$4" "${words[@]}" \
    --output "$run/peer" >>"$run/log"
  results "$run" knn "$PYTHON" "$here/metric_learning.py" judge "$run/peer/train.npz" "$run/peer/test.npz"
}

# finish RUN OPTIONS...: archive the training images, as embed is told, and put the others to it.
finish() {
  local run=$1
  shift
  embed "$run" "$train_csv" "$@"
  judge "$run" radius1 "$test_csv" --radius 1
  judge "$run" radius2 "$test_csv" --radius 2
  judge "$run" coarse-l2 "$test_csv" --coarse l2 # paper A's baseline
  judge "$run" patients "$test_csv" --max-per patient 1 # ten witnesses, not one ten times
}

# features DATASET: what the network as it is makes of all images, for NumPy.
features() {
  local run=$out/runs/$1/frozen/seed${seeds[0]} side
  describe "$1"
  on_images "$run" "$1" frozen "${seeds[0]}"
  logged "$run" patchknn embed "$test_csv" --encoder "$run/encoder" --archive "$run/test" >>"$run/log"
  for side in train test; do
    export_features "$run" "$run/${side/train/archive}" "$out/features/$1/$side.npz"
  done
}

# metric DATASET METHOD: NCA, LMNN or plain kNN on those features; they hang on no seed.
metric() {
  judge_metric "$out/runs/$1/$2/seed${seeds[0]}" "$2" 10 \
    "$out/features/$1/train.npz" "$out/features/$1/test.npz"
}

# one DATASET METHOD SEED
one() {
  describe "$1"
  case $2 in
    *-8) [ "$kind" = images ] || return 0 ;; # a chest, unlike tissue, has a top
    two-tasks*) [ -n "$extra_csv" ] || return 0 ;;
  esac
  "on_$kind" "$out/runs/$1/$2/seed$3" "$1" "$2" "$3"
}

# base METHOD: the method whose encoder it uses, or nothing.
base() { case $1 in *-8) echo "${1%-8}" ;; *-star) echo cross-entropy ;; esac; }

# round_of METHOD: 1, or one more than that of its base.
round_of() { case $1 in *-star-8) echo 3 ;; *-star | *-8) echo 2 ;; *) echo 1 ;; esac; }

# Every method's base is a row too, so that two runs at once never train the same encoder.
rows=()
for method in "${methods[@]}"; do
  while [ -n "$method" ]; do
    told "$method"
    [[ " ${rows[*]} " = *" $method "* ]] || rows+=("$method")
    method=$(base "$method")
  done
done

no_less "$weights"
if [ -z "${DATASETS:-}" ] && "$PYTHON" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())'; then
  datasets+=(chest_xray_finetuned)
fi

for dataset in "${datasets[@]}"; do
  describe "$dataset"
  prepare "$dataset"
  if [ "$kind" = features ] || [[ " ${methods[*]} " =~ \ (nca|lmnn|knn)\  ]]; then
    features "$dataset"
  fi
done

for round in 1 2 3; do
  for seed in "${seeds[@]}"; do
    for dataset in "${datasets[@]}"; do
      for method in "${rows[@]}"; do
        case $method in nca | lmnn | knn) continue ;; esac
        [ "$(round_of "$method")" = "$round" ] || continue
        start one "$dataset" "$method" "$seed"
      done
    done
  done
  all_done
done
for dataset in "${datasets[@]}"; do
  for method in "${methods[@]}"; do
    case $method in nca | lmnn | knn) metric "$dataset" "$method" ;; esac
  done
done

"$PYTHON" "$here/table.py" "$out/runs" --output "$out"
"$PYTHON" "$here/claims.py" "$out/runs" --output "$out/claims.md"

if [ "$extras" = 1 ]; then
  describe colon_cells
  if [[ " ${datasets[*]} " = *" colon_cells "* ]]; then
    # The sweeps and the convergence figure, small.
    TRAIN_DATA=$train_csv TEST_DATA=$test_csv EPOCHS=${SWEEP_EPOCHS:-4} \
      SEEDS=${SWEEP_SEEDS:-${seeds[0]}} PARTS=${PARTS:-neighbours votes bank convergence} \
      TRAIN_OPTIONS='' \
      "$here/sweeps.sh" "$data" "$out/sweeps" "${network[@]}" --weights "$weights" \
      --size "$size" --augment "$augment" "${train_options[@]}"
    for method in multitask cross-entropy; do
      run=$out/runs/colon_cells/$method/seed${seeds[0]}
      [ ! -d "$run/archive" ] || results "$run" answers \
        patchknn query "$run/archive" "$test_csv" --format ndjson
    done
    answers=()
    for run in "$out"/runs/colon_cells/*/seed"${seeds[0]}"; do
      method=$(basename "$(dirname "$run")")
      [ ! -s "$run/answers.ndjson" ] || answers+=("$method=$run/answers.ndjson")
    done
    if [ "${#answers[@]}" -gt 0 ]; then
      "$PYTHON" "$here/figures.py" neighbours "${answers[@]}" --output "$out/neighbours.png"
      "$PYTHON" "$here/figures.py" confidence "${answers[@]}" --output "$out/confidence.png"
    fi
  fi
fi
cat "$out/table.md" "$out/claims.md"
ended
