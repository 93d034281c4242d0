# shellcheck shell=bash
# What the jobs of this folder share; to be sourced. Slurm runs a copy of a batch script from its
# own folder, so "$0" does not lead here: the scripts that submit export SCRIPTS, and by hand you
# submit from the checkout, or with SCRIPTS set to this folder.

export HF_HUB_OFFLINE=1 # compute nodes have no internet; bundles and caches hold the weights

# requeueing COMMAND...: run it so that a preempted job loses nothing and goes on by itself.
#
# --signal=B:USR1@120 has this shell told two minutes before the end, and none of its children: it
# hands the signal on, patchknn publishes what is done and ends with 75, and the job is requeued.
# USR1, as srun passes it to its tasks; a SIGTERM would make srun kill them at once.
# SIGTERM is Slurm's own: at the end of the time, at a preemption that Slurm requeues itself, and at
# a scancel, which a job that requeued itself would survive. All processes get it, so nothing is to
# be handed on; this shell only waits for its child to save.
requeueing() {
  local child='' status=0 told=''
  trap 'told=yes; [ -z "$child" ] || kill -USR1 "$child" 2>/dev/null || :' USR1
  trap : TERM
  "$@" &
  child=$!
  [ -z "$told" ] || kill -USR1 "$child" 2>/dev/null || : # told before there was a child
  # Not "wait" alone: a signal interrupts it, and of a child that ends at that moment bash 5.2 then
  # knows no exit code any more.
  while kill -0 "$child" 2>/dev/null; do sleep 1 || :; done
  wait "$child" || status=$?
  # Above 128 a signal ended it: this one, before Python could take it, when there was nothing to
  # be saved yet, or srun's: where one task has ended with 75, it kills those that are about to.
  if [ -n "$told" ] && { [ "$status" -eq 75 ] || [ "$status" -gt 128 ]; }; then
    requeue_this
  fi
  trap - USR1 TERM
  return "$status"
}

# Back into the queue, MAX_RESTARTS times at most. Of an array this task alone: the task whose job
# number is the array's own would take all others along.
requeue_this() {
  local restarts=${SLURM_RESTART_COUNT:-0} most=${MAX_RESTARTS:-20} job=$SLURM_JOB_ID
  [ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
  if [ "$restarts" -ge "$most" ]; then
    echo "$job was restarted $restarts times; submit it again, or with a larger MAX_RESTARTS." >&2
  else
    trap '' TERM # with which Slurm ends what runs, before scontrol is back
    scontrol requeue "$job" || echo "$job cannot be requeued; submit it again to go on." >&2
  fi
}

# carry_on COMMAND...: 3 says that some inputs failed and the rest is done: no reason to stop.
# The variable "failed", 0 or 3, is for who ends with it.
failed=0
# shellcheck disable=SC2034
carry_on() {
  local status=0
  "$@" || status=$?
  [ "$status" -eq 0 ] || [ "$status" -eq 3 ] || exit "$status"
  [ "$status" -eq 0 ] || failed=3
}
