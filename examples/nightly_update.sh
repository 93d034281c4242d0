#!/usr/bin/env bash
# Keep an archive from cron: add the slides that arrived since the last run, take corrected labels
# in, compact, verify, and report on one line of NDJSON. Safe to run twice, or while it still runs:
# what is done is skipped, what another process has claimed is left to it.
#
# CORRECTIONS is a table of id,label and maybe by,reason; it may grow and be given every night.
# Whatever is given up by `gc` is a week old at least, and not among the last KEEP (30) snapshots.
# usage: nightly_update.sh SLIDES ENCODER ARCHIVE [CORRECTIONS]
set -euo pipefail
slides=$1 encoder=$2 archive=$3 corrections=${4:-}
tiles=$archive.tiles

# 3: some slides failed and are named on stderr; the others must still reach the archive.
carry_on() {
  local status=0
  "$@" >&2 || status=$?
  [ "$status" -eq 0 ] || [ "$status" -eq 3 ] || exit "$status"
  [ "$status" -eq 0 ] || failed=3
}

failed=0
before=0
[ ! -e "$archive/archive.json" ] || before=$(patchknn archive info "$archive" --format ndjson | jq .snapshot)
size=$(jq .input_size "$encoder/encoder.json")
carry_on patchknn tile "$slides" -o "$tiles" --size "$size" ${MPP:+--mpp "$MPP"} --format ndjson
carry_on patchknn embed "$tiles" --encoder "$encoder" --archive "$archive"
[ -z "$corrections" ] || carry_on patchknn archive relabel "$archive" "$corrections" --ignore-missing
added=$(patchknn archive list "$archive" --since "$before" --format ndjson | wc -l)
carry_on patchknn archive compact "$archive"
carry_on patchknn archive gc "$archive" --keep "${KEEP:-30}"
patchknn archive verify "$archive" >&2
patchknn archive info "$archive" --format ndjson |
  jq -c --argjson added "$added" '{time, snapshot, added: $added, rows, sources, classes, shards, bytes}'
exit "$failed"
