#!/usr/bin/env bash
# Add the slides that arrived since the last run to an archive, and check it. For cron.
# Safe to run twice, or while it still runs: what is done is skipped, what another process
# has claimed is left to it.
# usage: nightly_update.sh SLIDES ENCODER ARCHIVE
set -euo pipefail
slides=$1 encoder=$2 archive=$3
tiles=$archive.tiles

# 3: some slides failed and are named on stderr; the others must still reach the archive.
carry_on() {
  local status=0
  "$@" || status=$?
  [ "$status" -eq 0 ] || [ "$status" -eq 3 ] || exit "$status"
  [ "$status" -eq 0 ] || failed=3
}

failed=0
size=$(jq .input_size "$encoder/encoder.json")
carry_on patchknn tile "$slides" -o "$tiles" --size "$size" ${MPP:+--mpp "$MPP"} --format ndjson
carry_on patchknn embed "$tiles" --encoder "$encoder" --archive "$archive"
patchknn archive verify "$archive"
patchknn archive log "$archive" --format tsv | tail -n 1
exit "$failed"
