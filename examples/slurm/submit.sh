#!/usr/bin/env bash
# Slides become an archive, by jobs that wait for each other: an array tiles, a second try of what
# failed, an array embeds, a second try, then compact, verify and a report. Prints the last job's
# number. The same line again goes on where all of it stopped, and adds what is new.
#
# All tasks of an array run the same line and claim slides one by one, so any number will do. All
# write to one archive: a snapshot is published by one link, and whoever comes second tries again.
# For sites whose slides share names, see submit_sites.sh.
#
# What jobs ask of Slurm: SBATCH_ACCOUNT, SBATCH_PARTITION and the like, as sbatch has them, for all
# of them; TILE and EMBED hold more options for theirs (EMBED="--partition=gpu --mem=64G", or on CPUs
# EMBED="--gpus=0 --cpus-per-task=16"). What they ask of patchknn: MPP, and any option as a variable
# (PATCHKNN_TILE_ANNOTATIONS=/data/annotations).
# usage: submit.sh SLIDES ENCODER ARCHIVE [TASKS], such as 16, or 64%8 for eight of 64 at a time
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
slides=$(realpath "$1") encoder=$(realpath "$2") archive=$(realpath -m "$3") tasks=${4:-16}
tiles=$archive.tiles
size=$(jq .input_size "$encoder/encoder.json")
read -ra for_tile <<<"${TILE:-}"
read -ra for_embed <<<"${EMBED:-}"
tile=("$slides" -o "$tiles" --size "$size" ${MPP:+--mpp "$MPP"})
embed=("$tiles" --encoder "$encoder" --archive "$archive")

# submit NAME AFTER OPTIONS… SCRIPT ARGUMENTS…: a job once another has ended. "afterany", not
# "afterok": what could be tiled is to be embedded, whatever became of the rest.
export SCRIPTS=$here # jobs inherit it
submit() {
  local name=$1 after=$2
  shift 2
  job=$(sbatch --parsable ${after:+"--dependency=afterany:$after"} "$@")
  job=${job%%;*} # of several clusters, the name follows
  echo "$name: job $job" >&2
}

submit tile '' --array="1-$tasks" "${for_tile[@]}" "$here/tile.sbatch" "${tile[@]}"
submit 'tile again what failed' "$job" "${for_tile[@]}" "$here/retry.sbatch" "$tiles" tile "${tile[@]}"
submit embed "$job" --array="1-$tasks" "${for_embed[@]}" "$here/embed.sbatch" "${embed[@]}"
submit 'embed again what failed' "$job" --gpus=1 "${for_embed[@]}" \
  "$here/retry.sbatch" "$archive" embed "${embed[@]}"
submit finish "$job" "$here/finish.sbatch" "$archive" "$tiles" "$archive"
echo "$job"
