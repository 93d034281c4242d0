#!/usr/bin/env bash
# Tile and embed a folder of slides with two Slurm arrays; the second waits for the first.
# usage: submit.sh SLIDES ENCODER ARCHIVE [TASKS]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
slides=$(realpath "$1") encoder=$(realpath "$2") archive=$(realpath -m "$3") tasks=${4:-16}

# Array tasks share the work by claiming slides one by one, so any number of them will do.
export SLIDES=$slides ENCODER=$encoder ARCHIVE=$archive TILES=$archive.tiles
tile=$(sbatch --parsable --array="1-$tasks" "$here/tile.sbatch")
sbatch --parsable --array="1-$tasks" --dependency="afterany:$tile" "$here/embed.sbatch"
