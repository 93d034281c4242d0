#!/usr/bin/env bash
# Three archives judged by patients (of LC25000: source tiles) that they have not seen: figures with
# intervals, baselines, calibration, likely label errors, foreign images, and a page for people.
#
# data      PATCHKNN_DATA (default: ../shared/data beside the checkout), as examples/reproduce/local.sh
# licence   as there: colon_cells for research only, chest_xray CC BY 4.0, LC25000; no picture of
#           them may leave the pages that this makes
# hardware  two CPU cores and 4 GB
# time      half an hour on two cores; it may be stopped and started again
#
# usage: [DATASETS=... EPOCHS=... SIZE=...] reports.sh [OUT]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:-reports}
data=${PATCHKNN_DATA:-$here/../../../shared/data}
PYTHON=${PYTHON:-python3}
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
# As in examples/reproduce/local.sh: another network, and its weights.
weights=${WEIGHTS_FILE:-$data/weights/mobilenetv2_100_tflite_imagenet.f32.safetensors}
network=(--backbone mobilenetv2_100 --model-arg pad_type=same --mean 0.5 --std 0.5)
[ -z "${BACKBONE_OPTIONS:-}" ] || read -ra network <<<"$BACKBONE_OPTIONS"
read -ra datasets <<<"${DATASETS:-colon_cells lc25000_colon chest_xray}"

say() { printf '%(%H:%M:%S)T  %s\n' -1 "$*" >&2; }

for name in "${datasets[@]}"; do
  run=$out/$name
  mkdir -p "$run"
  epochs=${EPOCHS:-6} size=${SIZE:-64} augment=tissue
  case $name in
    colon_cells)
      train_csv=$data/colon_cells/train/manifest.csv test_csv=$data/colon_cells/val/manifest.csv ;;
    lc25000_colon)
      epochs=${EPOCHS:-3}
      "$PYTHON" "$here/../reproduce/prepare.py" lc25000 "$data/lc25000_colon" "$run/data" ;;
    chest_xray)
      epochs=${EPOCHS:-2} augment=flip
      "$PYTHON" "$here/../reproduce/prepare.py" chest-xray "$data/chest_xray/train" "$run/data" ;;
    *) say "DATASETS: $name is unknown."; exit 2 ;;
  esac
  if [ "$name" != colon_cells ]; then
    train_csv=$run/data/train.csv test_csv=$run/data/test.csv
  fi

  say "$name: train and embed"
  patchknn train "$train_csv" -o "$run/encoder" "${network[@]}" --weights "$weights" \
    --loss multitask --size "$size" --augment "$augment" --epochs "$epochs" --split none \
    --format ndjson >>"$run/log" 2>&1
  patchknn embed "$train_csv" --encoder "$run/encoder" --archive "$run/archive" \
    --thumbnails 112 >>"$run/log" 2>&1

  say "$name: calibrate"
  patchknn archive calibrate "$run/archive" "$test_csv" --format table | tee "$run/calibrate.txt"

  say "$name: evaluate"
  patchknn evaluate "$run/archive" "$test_csv" --method l2 --baseline all \
    --frozen-weights "$weights" --sweep k=1,3,5,10,20 \
    --diagnose --map "$run/map.png" --report "$run/report" --csv "$run/tables" \
    --answers "$run/answers.ndjson" --format table 2>>"$run/log" | tee "$run/evaluate.txt"
  patchknn evaluate "$run/archive" --exclude-same patient --suspects "$run/suspects.tsv" \
    --bootstrap 0 --baseline none --format ndjson >"$run/own.ndjson" 2> >(tee -a "$run/log" >&2)
done

# What is like nothing in the archive? Chest X-rays put to colon.
if [ -d "$out/colon_cells/archive" ] && [ -d "$data/chest_xray/train" ]; then
  find "$data/chest_xray/train" -name '*.jpeg' | sort | awk 'NR % 26 == 0' |
    patchknn query "$out/colon_cells/archive" - --calibrated --format ndjson 2>>"$out/colon_cells/log" |
    jq -s '{foreign: length, flagged: (map(select(.out_of_distribution)) | length)}'
fi
