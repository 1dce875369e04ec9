# shellcheck shell=bash
# shellcheck disable=SC2034  # the settings are read by what sources this file
# Reads launch/config. The file is parsed, never sourced: a value is text, whatever it looks like.

REQUIRED=(PROJECT ZONE TPU_NAME ACCELERATOR_TYPE ENGINE GIN_FILE DATA_DIR MODEL_DIR REPOSITORY
  REVISION)
OPTIONAL=(PROVISIONING RUNTIME_VERSION NETWORK SUBNETWORK SERVICE_ACCOUNT INITIAL_CHECKPOINT_PATH
  CHECKPOINT_PERIOD MAX_RESUMES POLL_SECONDS BACKOFF_SECONDS)

# The settings, so that none is taken from the environment.
PROJECT='' ZONE='' TPU_NAME='' ACCELERATOR_TYPE='' ENGINE='' GIN_FILE='' DATA_DIR='' MODEL_DIR=''
REPOSITORY='' REVISION='' PROVISIONING='' RUNTIME_VERSION='' NETWORK='' SUBNETWORK=''
SERVICE_ACCOUNT='' INITIAL_CHECKPOINT_PATH='' CHECKPOINT_PERIOD='' MAX_RESUMES=''
POLL_SECONDS='' BACKOFF_SECONDS=''
# The `GIN.NAME=value` lines, in order.
GIN_NAMES=() GIN_VALUES=()

# mend NAME VALUE: sets ADVICE to what to write instead, to nothing if the value is good.
mend() {
  local name=$1 value=$2
  ADVICE=''
  case $name in
    PROJECT)
      [[ $value =~ ^[a-z][a-z0-9.:-]*$ ]] || ADVICE="write the project's id, such as my-project-123"
      ;;
    ZONE) [[ $value =~ ^[a-z0-9-]+$ ]] || ADVICE="write a zone, such as us-central2-b" ;;
    TPU_NAME)
      [[ $value =~ ^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$ ]] ||
        ADVICE="write 1 to 63 small letters, digits and hyphens, a letter first"
      ;;
    ACCELERATOR_TYPE)
      [[ $value =~ ^[a-z0-9]+-[1-9][0-9]*$ ]] ||
        ADVICE="write a type as Google Cloud names it, such as v4-8, v5litepod-256, v5p-8 or v6e-8"
      ;;
    RUNTIME_VERSION)
      [[ $value =~ ^[a-z0-9][a-z0-9._-]*$ ]] || ADVICE="write one, such as tpu-ubuntu2204-base"
      ;;
    PROVISIONING)
      [[ $value =~ ^(on-demand|spot|queued|queued-spot)$ ]] ||
        ADVICE="write on-demand, spot, queued or queued-spot"
      ;;
    ENGINE) [[ $value =~ ^(builtin|t5x)$ ]] || ADVICE="write builtin or t5x" ;;
    GIN_FILE) [[ $value == *.gin ]] || ADVICE="write a recipe, such as gin/uem_flan_t5_base.gin" ;;
    DATA_DIR | MODEL_DIR)
      [[ $value =~ ^gs://[a-z0-9][a-z0-9._-]*/. ]] ||
        ADVICE="write a folder in a bucket without quotes, such as gs://my-bucket/folder"
      ;;
    REPOSITORY) [[ $value != -* ]] || ADVICE="write an address that git can clone" ;;
    REVISION)
      [[ $value =~ ^[A-Za-z0-9][A-Za-z0-9._/-]*$ ]] || ADVICE="write a commit, a tag or a branch"
      ;;
    NETWORK | SUBNETWORK)
      [[ $value =~ ^[A-Za-z0-9][A-Za-z0-9._:/-]*$ ]] || ADVICE="write the name of a network"
      ;;
    SERVICE_ACCOUNT)
      [[ $value =~ ^[A-Za-z0-9][A-Za-z0-9._-]*@[A-Za-z0-9.:-]+$ ]] ||
        ADVICE="write an account's address, such as NAME@PROJECT.iam.gserviceaccount.com"
      ;;
    CHECKPOINT_PERIOD) [[ $value =~ ^[1-9][0-9]*$ ]] || ADVICE="write a number of steps" ;;
    MAX_RESUMES | BACKOFF_SECONDS)
      [[ $value =~ ^(0|[1-9][0-9]{0,5})$ ]] || ADVICE="write a whole number"
      ;;
    POLL_SECONDS)
      [[ $value =~ ^[0-9]+(\.[0-9]+)?$ ]] || ADVICE="write a number of seconds"
      ;;
  esac
}

# gin_string TEXT: a literal that gin and Python read back as TEXT. No line breaks come this far.
gin_string() {
  local text=$1 i
  printf '"'
  for ((i = 0; i < ${#text}; i++)); do
    case ${text:i:1} in
      \\ | '"') printf '\\%s' "${text:i:1}" ;;
      *) printf '%s' "${text:i:1}" ;;
    esac
  done
  printf '"'
}

# gin_value TEXT: TEXT where it is a gin value, a string that says TEXT where it is none.
gin_value() {
  local number='^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$'
  local name='^(True|False|None|[@%][A-Za-z_][A-Za-z0-9_./]*(\(\))?)$'
  local in_one_quote="^'([^'\\\\]|\\\\.)*'\$" in_two_quotes='^"([^"\\]|\\.)*"$'
  local container='^(\(.*\)|\[.*\]|\{.*\})$'
  if [[ $1 =~ $number || $1 =~ $name || $1 =~ $in_one_quote || $1 =~ $in_two_quotes ||
    $1 =~ $container ]]; then
    printf '%s' "$1"
  else
    gin_string "$1"
  fi
}

# among WORD WORDS...: whether WORD is one of them.
among() {
  local word=$1 other
  shift
  for other in "$@"; do
    [[ $word != "$other" ]] || return 0
  done
  return 1
}

# read_config FILE: sets the variables above, or ends with one line that says what is wrong.
read_config() {
  local file=$1 line name value number=0
  local blank='^[[:space:]]*(#.*)?$' setting='^ *([A-Za-z_][A-Za-z0-9_./]*) *= *(.*)$'
  [[ -f $file ]] || fail 2 "$file: no such file; copy launch/config.example to it and fill it in"
  while IFS= read -r line || [[ -n $line ]]; do
    number=$((number + 1))
    line=${line%$'\r'}
    [[ ! $line =~ $blank ]] || continue
    if [[ $line == *[[:cntrl:]]* ]]; then
      fail 2 "$file:$number: $(shown "$line"): remove the tab or control character"
    fi
    [[ $line =~ $setting ]] ||
      fail 2 "$file:$number: $(shown "$line"): write NAME=value on one line"
    name=${BASH_REMATCH[1]}
    value=${BASH_REMATCH[2]}
    value=${value%"${value##*[! ]}"}
    [[ -n $value ]] || continue
    if [[ $value == *" #"* ]]; then
      fail 2 "$file:$number: $name=$(shown "$value"): a comment needs a line of its own"
    fi
    if [[ $name == GIN.?* ]]; then
      take_macro "$file:$number" "${name#GIN.}" "$value"
      continue
    fi
    if ! among "$name" "${REQUIRED[@]}" "${OPTIONAL[@]}"; then
      fail 2 "$file:$number: $name: no such setting; there are ${REQUIRED[*]} ${OPTIONAL[*]}" \
        "and GIN.NAME"
    fi
    [[ -z ${!name} ]] || fail 2 "$file:$number: $name=$(shown "$value"): set twice; keep one line"
    mend "$name" "$value"
    [[ -z $ADVICE ]] || fail 2 "$file:$number: $name=$(shown "$value"): $ADVICE"
    printf -v "$name" '%s' "$value"
  done <"$file"

  for name in "${REQUIRED[@]}"; do
    [[ -n ${!name} ]] || fail 2 "$file: $name is missing; see launch/config.example for its line"
  done
  : "${PROVISIONING:=on-demand}" "${MAX_RESUMES:=20}" "${POLL_SECONDS:=30}" "${BACKOFF_SECONDS:=30}"
  : "${RUNTIME_VERSION:=$(runtime_version)}"
}

# take_macro WHERE NAME VALUE
take_macro() {
  case $2 in
    MODEL_DIR | DATA_DIR | INITIAL_CHECKPOINT_PATH | CHECKPOINT_PERIOD)
      fail 2 "$1: GIN.$2=$(shown "$3"): write $2=... instead"
      ;;
  esac
  if among "$2" ${GIN_NAMES[@]+"${GIN_NAMES[@]}"}; then
    fail 2 "$1: GIN.$2=$(shown "$3"): set twice; keep one line"
  fi
  GIN_NAMES+=("$2")
  GIN_VALUES+=("$3")
}

# Google's common versions for JAX.
runtime_version() {
  case $ACCELERATOR_TYPE in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

is_queued() { [[ $PROVISIONING == queued* ]]; }
is_spot() { [[ $PROVISIONING == *spot ]]; }
# A host holds at most 8 of what the number counts, TensorCores (v2 to v4, v5p) or chips (the rest).
has_several_hosts() { ((${ACCELERATOR_TYPE##*-} > 8)); }
