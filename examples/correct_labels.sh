#!/usr/bin/env bash
# Give corrected labels back to training: the archive's own list with some labels replaced.
# CORRECTIONS.csv has the columns id,label; OUT.tsv is a manifest for `patchknn train`.
# usage: correct_labels.sh ARCHIVE CORRECTIONS.csv OUT.tsv
set -euo pipefail
archive=$1 corrections=$2 out=$3

patchknn archive list "$archive" --format tsv |
  awk -F '\t' -v OFS='\t' -v file="$corrections" '
    BEGIN {
      getline < file                      # its header
      while ((getline line < file) > 0) { split(line, cell, ","); corrected[cell[1]] = cell[2] }
    }
    NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i }
    NR > 1 && ($column["id"] in corrected) { $column["label"] = corrected[$column["id"]]; changed++ }
    { print }
    END { print changed + 0 " labels changed" > "/dev/stderr" }' > "$out"
