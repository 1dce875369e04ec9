# shellcheck shell=bash
# shellcheck disable=SC2034  # what is found out is read by what sources this file
# What is asked of Google Cloud, and of the hosts of the TPU through it.

ON_VM=uem-t5x-on-vm # where `on_vm` lies on each host, in the home directory
ABSENT=ABSENT       # Cloud says that there is none
NO_ANSWER=-         # Cloud does not say: never a reason to create or delete anything
MISSES=40           # this many silent looks in a row, and we stop
IMAGINED=$ABSENT    # what a dry run takes the TPU's state to be

# shown WORD...: the words as a person would type them.
shown() {
  local word space=''
  for word in "$@"; do
    case $word in
      *\'*) printf '%s%q' "$space" "$word" ;;
      '' | *[!A-Za-z0-9_./:=@%+,-]*) printf "%s'%s'" "$space" "$word" ;;
      *) printf '%s%s' "$space" "$word" ;;
    esac
    space=' '
  done
}

# run COMMAND...: runs it, or in a dry run prints it. File 3 is the terminal, also within $(...).
run() {
  if "$DRY_RUN"; then
    shown "$@" >&3
    echo >&3
  else
    "$@" 3>&-
  fi
}

tpus() { run gcloud compute tpus "$@" --zone="$ZONE" --project="$PROJECT"; }

# on_hosts WORKER COMMAND...: runs `on_vm COMMAND...` on host number WORKER, or on `all` of them.
# What follows --command is read by a shell over there, hence %q.
on_hosts() {
  local worker=$1 command="bash $ON_VM" word
  shift
  for word in "$@"; do
    printf -v word '%q' "$word"
    command+=" $word"
  done
  tpus tpu-vm ssh "$TPU_NAME" --worker="$worker" --command="$command"
}

# described KIND FIELD: the state of the `tpu-vm` or of its `queued-resources`.
described() {
  local state
  if state=$(tpus "$1" describe "$TPU_NAME" --format="value($2)" 2>"$ERRORS"); then
    if ! "$DRY_RUN"; then
      echo "${state:-$NO_ANSWER}"
    elif [[ $1 == tpu-vm ]] || is_queued; then
      echo "$IMAGINED"
    else
      echo "$ABSENT"
    fi
  elif grep -q NOT_FOUND "$ERRORS"; then
    echo "$ABSENT"
  else
    echo "$NO_ANSWER"
  fi
}

# look: sets STATE to ready, waiting, going, lost, absent or silent, and WORD to Cloud's own word.
# A request becomes a TPU, so there is nothing only where there is none of either.
look() {
  local request
  WORD=$(described tpu-vm state)
  case $WORD in
    READY) STATE=ready ;;
    PREEMPTED | TERMINATED | STOPPING | STOPPED | HIDING | HIDDEN | UNKNOWN) STATE=lost ;;
    "$NO_ANSWER") STATE=silent ;;
    DELETING) STATE=going ;;
    "$ABSENT")
      request=$(described queued-resources state.state)
      case $request in
        "$ABSENT") STATE=absent ;;
        "$NO_ANSWER") STATE=silent ;;
        DELETING) STATE=going WORD="a request that is $request" ;;
        FAILED | SUSPENDING | SUSPENDED) STATE=lost WORD="a request that is $request" ;;
        *) STATE=waiting WORD="a request that is $request" ;;
      esac
      ;;
    *) STATE=waiting ;; # CREATING, STARTING, REPAIRING, ...
  esac
}

# standing: says what there is as of the last look, and whether it costs money.
standing() {
  case $STATE in
    ready) echo "$TPU_NAME is $WORD and costs money until: $ME delete" ;;
    waiting | lost) echo "$TPU_NAME is $WORD, and may cost money until: $ME delete" ;;
    going) echo "$TPU_NAME is $WORD, and may cost money until it is gone: $ME status" ;;
    absent)
      echo "Google Cloud has no TPU and no request of the name $TPU_NAME in $ZONE of $PROJECT"
      inventory
      ;;
    silent) echo "Google Cloud does not answer; $(unknown)" ;;
  esac
}

# unknown: what can be said of money where nobody could ask.
unknown() {
  echo "$TPU_NAME may exist and be billed until: $ME delete"
  echo "  whether it does: $ME status"
  inventory
}

# inventory: the commands that list all that the project has: a zone may be the wrong one.
inventory() {
  echo "  TPUs in any zone: gcloud compute tpus tpu-vm list --zone=- --project=$PROJECT"
  echo "  requests: gcloud compute tpus queued-resources list --zone=- --project=$PROJECT"
}

# order: creates the TPU, or a request for one.
order() {
  local flags=()
  ! is_spot || flags+=(--spot)
  [[ -z $NETWORK ]] || flags+=(--network="$NETWORK")
  [[ -z $SUBNETWORK ]] || flags+=(--subnetwork="$SUBNETWORK")
  [[ -z $SERVICE_ACCOUNT ]] || flags+=(--service-account="$SERVICE_ACCOUNT")
  if is_queued; then
    tpus queued-resources create "$TPU_NAME" --node-id="$TPU_NAME" \
      --accelerator-type="$ACCELERATOR_TYPE" --runtime-version="$RUNTIME_VERSION" \
      ${flags[@]+"${flags[@]}"} || return
  else
    tpus tpu-vm create "$TPU_NAME" --accelerator-type="$ACCELERATOR_TYPE" \
      --version="$RUNTIME_VERSION" ${flags[@]+"${flags[@]}"} || return
  fi
  IMAGINED=READY
}

# remove: deletes the request, and with it its TPU, or the TPU. FOUND tells afterwards whether there
# was anything. That it returned is no proof that nothing is left: look.
remove() {
  FOUND=false
  remove_one queued-resources state.state --force && remove_one tpu-vm state
}

# remove_one KIND FIELD [FLAG]
remove_one() {
  local kind=$1 state
  state=$(described "$kind" "$2")
  shift 2
  case $state in
    "$NO_ANSWER")
      show_errors
      return 1
      ;;
    "$ABSENT") return 0 ;;
  esac
  FOUND=true
  [[ $state == DELETING ]] || tpus "$kind" delete "$TPU_NAME" "$@" --quiet || return
  IMAGINED=$ABSENT
}

# obtain MAY_REPLACE: returns when the TPU is READY. One that is lost is deleted and created anew if
# MAY_REPLACE is true. Each is done once, and what came of it Cloud is asked, not the command: a
# connection breaks, or a wait times out, when the TPU is long there. RECREATED tells afterwards
# whether anything was created.
obtain() {
  local may_replace=$1 misses=0 said=
  RECREATED=false
  while true; do
    look
    case $STATE in
      ready) return 0 ;;
      absent)
        if "$RECREATED"; then
          is_queued || complain "for want of capacity, try PROVISIONING=queued"
          return 1
        fi
        say "creating $TPU_NAME: $ACCELERATOR_TYPE in $ZONE, $PROVISIONING"
        RECREATED=true may_replace=false
        order || complain "the creation did not end well (see above); asking what there is"
        ;;
      lost)
        if ! "$may_replace"; then
          complain "$TPU_NAME is $WORD; $ME resume deletes it and brings it back"
          return 1
        fi
        say "$TPU_NAME is $WORD: deleting it"
        remove || complain "the deletion did not end well (see above); asking what there is"
        may_replace=false
        ;;
      waiting | going)
        if [[ $WORD != "$said" ]]; then
          say "$TPU_NAME is $WORD; waiting (Ctrl-C ends the waiting, and nothing else)"
          said=$WORD
        fi
        ;;
      silent)
        misses=$((misses + 1))
        ((misses <= MISSES)) || return 1
        if ((misses == 1)); then
          show_errors
          say "asking again. $(standing)"
        fi
        ;;
    esac
    [[ $STATE == silent ]] || misses=0
    pause "$POLL_SECONDS"
  done
}

# --- What runs on the hosts ---

# prepare_hosts: what is left of a run ends, and everything is installed.
prepare_hosts() {
  tpus tpu-vm scp "$HERE/on_vm" "$TPU_NAME:$ON_VM" --worker=all || return
  on_hosts all stop || return
  on_hosts all setup "$ENGINE" "$REPOSITORY" "$REVISION"
}

# start_training: the same arguments whenever it is called, so that a run goes on where it was.
start_training() {
  local arguments i
  arguments=(--gin_file="$GIN_FILE" --gin.MODEL_DIR="$(gin_string "$MODEL_DIR")"
    --gin.DATA_DIR="$(gin_string "$DATA_DIR")")
  if [[ -n $INITIAL_CHECKPOINT_PATH ]]; then
    arguments+=(--gin.INITIAL_CHECKPOINT_PATH="$(gin_string "$INITIAL_CHECKPOINT_PATH")")
  fi
  [[ -z $CHECKPOINT_PERIOD ]] || arguments+=(--gin.CHECKPOINT_PERIOD="$CHECKPOINT_PERIOD")
  for ((i = 0; i < ${#GIN_NAMES[@]}; i++)); do
    arguments+=(--gin."${GIN_NAMES[i]}=$(gin_value "${GIN_VALUES[i]}")")
  done
  if has_several_hosts; then
    # Both call jax.distributed.initialize(), which finds the other hosts by itself on Cloud TPU.
    # T5X's flag says GPU, and does no more than that.
    case $ENGINE in
      builtin) arguments+=(--multiprocess) ;;
      t5x) arguments+=(--multiprocess_gpu) ;;
    esac
  fi
  on_hosts all train "$ENGINE" "${arguments[@]}"
}

# severity CODE: a number, the greater the more this exit code says about why training ended. One
# host fails, and takes the others down, whose codes are of no more weight for coming last.
severity() {
  case $1 in
    2) echo 1000 ;; # input refused: to try again would not help
    "$TOLD_TO_STOP") echo 1 ;;
    0 | '') echo 0 ;;
    [1-9] | [1-9][0-9] | [1-9][0-9][0-9]) echo $((1000 - $1)) ;; # training's own 1 before signals
    *) echo 2 ;; # a host that could not write its code down
  esac
}

# inspect: sets TRAINING to running, done, failed, died, none or unreachable, as it is on all hosts
# together; EXIT_CODE if it failed; STEP to the last one that a log speaks of, or to nothing.
inspect() {
  local report code=0 tag state exit_code step
  local running=false exited=false died=false none=false
  TRAINING=unreachable EXIT_CODE='' STEP=''
  report=$(on_hosts all status 2>"$ERRORS" </dev/null) || code=$?
  if ((code == 127)) || "$DRY_RUN"; then # on_vm is not there: a fresh TPU
    TRAINING=none
    return
  fi
  ((code == 0)) || return 0
  while read -r tag state exit_code step; do
    [[ $tag == uem-t5x-status ]] || continue
    case $state in
      running) running=true ;;
      died) died=true ;;
      none) none=true ;;
      exited)
        exited=true
        (($(severity "$exit_code") <= $(severity "$EXIT_CODE"))) || EXIT_CODE=$exit_code
        ;;
    esac
    if [[ $step =~ ^[0-9]{1,15}$ ]] && ((10#$step > ${STEP:--1})); then STEP=$((10#$step)); fi
  done <<<"$report"
  if [[ $EXIT_CODE == "$TOLD_TO_STOP" ]] && "$running"; then
    # They all stop after the same step: the rest are saving it, or have yet to say what went wrong.
    TRAINING=running EXIT_CODE=''
  elif [[ -n $EXIT_CODE ]]; then
    TRAINING=failed
  elif "$died" || { "$none" && { "$running" || "$exited"; }; }; then
    TRAINING=died
  elif "$running"; then
    TRAINING=running
  elif "$exited"; then
    TRAINING='done'
  elif "$none"; then
    TRAINING=none
  fi
}

# follow: prints what the first host's log has got since the last time.
follow() {
  local report next
  report=$(on_hosts 0 log "$NEXT_LINE" 2>"$ERRORS" </dev/null) || return 0
  next=${report##*$'\n'}
  [[ $next == "uem-t5x-next "* ]] || return 0
  NEXT_LINE=${next#uem-t5x-next }
  if [[ $report == *$'\n'* ]]; then printf '%s\n' "${report%$'\n'*}"; fi
}
