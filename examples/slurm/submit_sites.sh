#!/usr/bin/env bash
# An archive per site or project, each as submit.sh makes it, and at the end one of all of them, in
# which slides and patients are called SITE/NAME: for sites whose slides share names, or whose
# archives are theirs to keep. It takes the disk space twice; where names are unique, one archive is
# simpler: submit.sh with the folder above. Prints the last job's number. The same line again, with
# more sites or slides, adds what is new. Settings as for submit.sh, and TASKS, of each array (16).
# usage: submit_sites.sh ENCODER ARCHIVE SITE=SLIDES…
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
encoder=$1 archive=$(realpath -m "$2")
shift 2

after=afterany sites=()
for pair in "$@"; do
  site=${pair%%=*} slides=${pair#*=}
  echo "site $site" >&2
  job=$("$here/submit.sh" "$slides" "$encoder" "$archive.sites/$site" "${TASKS:-16}")
  after+=:$job
  sites+=("$site=$archive.sites/$site")
done
export SCRIPTS=$here # jobs inherit it
job=$(sbatch --parsable --dependency="$after" "$here/merge.sbatch" "$archive" "${sites[@]}")
job=${job%%;*}
echo "merge: job $job" >&2
job=$(sbatch --parsable --dependency="afterany:$job" "$here/finish.sbatch" "$archive")
echo "${job%%;*}"
