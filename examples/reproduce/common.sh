# shellcheck shell=bash
# What the scripts of this folder share; to be sourced. A run is a folder: OUT/DATA/METHOD/seedN
# with encoder/, archive/, the figures of every evaluation as NAME.ndjson, and all messages in log.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PYTHON=${PYTHON:-python3}
JOBS=${JOBS:-1}
unset PYTHONSAFEPATH # claims.py and table.py import what lies beside them
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE} # waiting threads that spin make all others slow
if [ "$JOBS" -gt 1 ] && [ -z "${OMP_NUM_THREADS:-}" ]; then # the CPUs are shared out
  OMP_NUM_THREADS=$((($(nproc) + JOBS - 1) / JOBS))
  export OMP_NUM_THREADS
fi

# The traditional triplet loss of paper B: the farthest of a class, the nearest of the others. With
# distances on the unit sphere: off it, features of colon_cells shrank to a point at every rate.
# shellcheck disable=SC2034 # for those who source this
traditional=(--loss triplet --mining batch-hard --normalize --margin 0.2)

say() { printf '%(%H:%M:%S)T  %s\n' -1 "$*" >&2; }

# logged RUN COMMAND...: messages go to RUN/log, and its end is shown where the command fails.
# Exit code 3 (some images cannot be read, the rest is done) is no reason to stop.
logged() {
  local run=$1 status=0
  shift
  mkdir -p "$run"
  printf '$ %s\n' "$*" >>"$run/log"
  "$@" 2>>"$run/log" || status=$?
  if [ "$status" -eq 3 ]; then
    say "$run: some images cannot be read, see $run/log"
  elif [ "$status" -eq 75 ]; then
    say "$run: stopped; the same command goes on"
    kill -TERM $$ # whoever stops one of the runs does not want the next
    return "$status"
  elif [ "$status" -ne 0 ]; then
    say "$run: exit code $status of $*"
    tail -n 5 "$run/log" >&2
    return "$status"
  fi
}

# train RUN DATA... OPTIONS...: an encoder; skipped by patchknn itself where it is trained already.
train() {
  local run=$1
  shift
  say "train     $run"
  mkdir -p "$run"
  logged "$run" patchknn train "$@" --output "$run/encoder" --format ndjson >>"$run/log"
  forget_others "$run"
}

# take_over RUN FROM: the encoder of another run, in place of training one.
take_over() {
  mkdir -p "$1"
  ln -sfn "$(realpath "$2/encoder")" "$1/encoder"
  forget_others "$1"
}

# forget_others RUN: whatever an earlier encoder gave is of no use any more.
forget_others() {
  local archived=$1/archive/encoder/encoder.json
  if [ -e "$archived" ] && ! cmp -s "$1/encoder/encoder.json" "$archived"; then
    rm -rf "$1/archive" "$1/test" "$1"/*.ndjson
  fi
}

# embed RUN DATA... OPTIONS...: into the run's archive; what it has already is skipped.
embed() {
  local run=$1
  shift
  say "embed     $run"
  logged "$run" patchknn embed "$@" --encoder "$run/encoder" --archive "$run/archive" >/dev/null
}

# results RUN NAME COMMAND...: what a command prints, as RUN/NAME.ndjson, unless that is there.
results() {
  local run=$1 name=$2
  shift 2
  [ ! -s "$run/$name.ndjson" ] || return 0
  say "$(printf '%-9s %s' "$name" "$run")"
  mkdir -p "$run"
  logged "$run" "$@" >"$run/.$name.part"
  mv "$run/.$name.part" "$run/$name.ndjson"
}

# judge RUN NAME DATA... OPTIONS...: one evaluation of the run's archive.
judge() {
  local run=$1 name=$2
  shift 2
  results "$run" "$name" patchknn evaluate "$run/archive" "$@" --format ndjson
}

# judge_exactly RUN NAME DATA... OPTIONS...: the same with all rows ranked by L2, as paper B does:
# the ball is as wide as the codes are long.
judge_exactly() {
  local run=$1 name=$2 bits
  shift 2
  bits=$(jq .bits "$run/archive/archive.json")
  judge "$run" "$name" "$@" --radius "$bits" --max-radius "$bits"
}

# start COMMAND...: beside others, JOBS at once. What fails is counted, and the others go on. Each
# notes its own failure: after hours a process number may have been given anew, and waiting for it
# would tell nothing of what it once was.
failures=$(mktemp)
start() {
  while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do sleep 0.2; done
  set -m # each in a process group of its own, so that it can be stopped with all that it started
  (
    trap '[ "$?" -eq 0 ] || echo failed >>"$failures"' EXIT
    "$@"
  ) &
  set +m
}

# all_done: wait for what was started.
all_done() { wait; }

# ended: the last line of a script, after its tables.
ended() {
  [ ! -s "$failures" ] || {
    say "$(wc -l <"$failures") of the runs failed, as said above; the same command tries them again."
    exit 1
  }
}

# A stopped training saves, so all of them are given the time to.
stop_all() {
  local pid
  for pid in $(jobs -rp); do
    kill -- "-$pid" 2>/dev/null || true
  done
  wait
  rm -f "$failures"
}
trap stop_all EXIT
trap 'exit 75' TERM

# no_less NAME...: stop, before hours are spent, where a needed file or folder is missing.
no_less() {
  local path
  for path in "$@"; do
    [ -e "$path" ] || {
      say "$path does not exist: see the head of $0 for what it needs."
      exit 1
    }
  done
}

# backbone NAME: the options that start from it: WEIGHTS/NAME.safetensors where the variable WEIGHTS
# names a folder (nodes without internet), else timm's own weights.
backbone() {
  printf '%s\n' --backbone "$1"
  if [ -n "${WEIGHTS:-}" ]; then
    printf '%s\n' --weights "$WEIGHTS/$1.safetensors"
  else
    printf '%s\n' --pretrained
  fi
}

# judge_metric RUN METHOD K TRAIN.npz TEST.npz: kNN on stored features, as they are (knn) or after
# NCA or LMNN, which get an environment of their own below OUT, as the scripts call their second
# argument: metric-learn needs scikit-learn below 1.8.
judge_metric() {
  # shellcheck disable=SC2154
  local run=$1 method=$2 k=$3 python=$PYTHON environment=$out/venv
  shift 3
  if [ "$method" != knn ]; then
    python=$environment/bin/python
    [ -e "$environment/ready" ] || {
      say "an environment for NCA and LMNN: $environment"
      "$PYTHON" -m venv "$environment"
      "$environment/bin/pip" install --quiet 'scikit-learn<1.8' 'metric-learn>=0.7'
      touch "$environment/ready"
    }
  fi
  results "$run" knn "$python" "$here/metric_learning.py" judge --method "$method" --k "$k" "$@"
}

# export_features RUN ARCHIVE FILE.npz: an archive's features, unless this archive's are there.
export_features() {
  [ "$3" -nt "$2/archive.json" ] || logged "$1" "$PYTHON" "$here/metric_learning.py" export "$2" "$3"
}
