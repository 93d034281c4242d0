#!/usr/bin/env bash
# Query every image below a folder and print the doubtful answers first.
# usage: triage.sh ARCHIVE FOLDER
set -euo pipefail
archive=$1 folder=$2

# Exit code 3 says that some images could not be read: they are listed, the rest is answered.
status=0
answers=$(find "$folder" -type f \( -name '*.png' -o -name '*.jpg' -o -name '*.tif' \) | LC_ALL=C sort |
  patchknn query "$archive" - --format ndjson) || status=$?
[ "$status" -eq 0 ] || [ "$status" -eq 3 ] || exit "$status"

printf 'confidence\tprediction\tclassifier agrees\tnearest\tquery\n'
jq -r 'select(has("error") | not)
  | [.confidence // 0, .prediction // "-", (.classifier.agrees | tostring), .neighbours[0].id // "-", .query]
  | @tsv' <<<"$answers" | LC_ALL=C sort -n
jq -r 'select(has("error")) | "not read: " + .error' <<<"$answers" >&2
exit "$status"
