# shellcheck shell=bash
# What all launch scripts share: they source this file and call `launch ARGUMENTS...`.
# The variables are explained in resnet50_256gpu.sh. Order: staging, preflight, training; then
# hvd_utils/inspect/requeue.py says whether to start again.
set -euo pipefail

readonly EXIT_BAD_INPUT=2 EXIT_RESUME=75 # see hvd_utils/cli/errors.py
readonly SAVE_SECONDS=90                 # after a signal, for saving: less than --signal's lead

say() { echo "launch: $*"; }
die() {
  echo "launch: error: $*" >&2
  exit "$EXIT_BAD_INPUT"
}

make_output() {
  mkdir -p "$1" || die "cannot write to $OUTPUT: set OUTPUT to a folder that all nodes share"
}

# The time limit is near, or somebody wants this to end: the ranks save, and all leave by code 75.
told='' running=''
be_told() {
  told=1
  say "told to stop ($1)"
  [[ -z $running ]] || kill -USR1 "$running" 2>/dev/null || true # mpirun passes it on to all ranks
}
trap 'be_told USR1' USR1
trap 'be_told TERM' TERM
trap 'be_told INT' INT

# run COMMAND...: run it, pass signals on, and leave its exit code in `code`.
run() {
  code=$EXIT_RESUME
  [[ -z $told ]] || return 0
  local errors=
  [[ $1 != srun ]] || errors=$logs/srun.txt
  exec 3>&2
  [[ -z $errors ]] || exec 3>"$errors" # of srun itself: the ranks' own are in their output
  setsid "$@" </dev/null 2>&3 3>&- & # in a group of its own: what is sent to ours is passed on as SIGUSR1
  exec 3>&-
  running=$!
  code=0
  wait "$running" || code=$?
  if [[ -n $told ]] && ((code > 128)); then # the signal ended the wait
    local limit=$((SECONDS + SAVE_SECONDS))
    while kill -0 "$running" 2>/dev/null; do
      if ((SECONDS >= limit + 10)); then
        kill -KILL "$running" 2>/dev/null || true
      elif ((SECONDS >= limit)); then
        kill -TERM "$running" 2>/dev/null || true
      fi
      sleep 1
    done
    code=0
    wait "$running" || code=$?
  fi
  running=''
  if [[ -n $errors ]]; then
    cat "$errors" >&2
    # srun returns the highest code, as of a rank that it killed: the first rank to end tells why.
    local first
    first=$(sed -n 's/.*: Exited with exit code \([0-9]*\)$/\1/p' "$errors" | head -n 1)
    code=${first:-$code}
  fi
}

# Open MPI's major version, of what `mpirun --version` printed; 0 of another MPI.
open_mpi_of() {
  local version
  version=$(sed -n 's/.*(Open MPI) \([0-9]*\).*/\1/p' <<<"$1")
  echo "${version:-0}"
}

activate() {
  if [[ -n ${MODULES:-} ]]; then
    # shellcheck disable=SC2086 # several modules
    module load $MODULES || die "module load $MODULES failed: set MODULES to what your site has"
  fi
  VENV=${VENV:-${VIRTUAL_ENV:-$REPO/.venv}}
  if [[ -f $VENV/bin/activate ]]; then
    # shellcheck disable=SC1091
    source "$VENV/bin/activate"
  elif [[ -z ${CONTAINER:-} ]]; then
    die "no virtual environment $VENV: run 'make setup' in $REPO, or set VENV or CONTAINER"
  fi
}

# Sets `cache` to the folder that the job's --cache names; empty without one. A relative one is in $REPO.
find_cache() {
  local previous='' argument
  cache=
  for argument in "$@"; do
    [[ $previous != --cache ]] || cache=$argument
    [[ $argument != --cache=* ]] || cache=${argument#--cache=}
    previous=$argument
  done
  [[ $cache == /* ]] || cache=
}

# Sets `inside`, what comes before each command that runs in CONTAINER; empty without one. The
# container brings Python and its packages; the code is that of $REPO.
describe_container() {
  inside=()
  [[ -n ${CONTAINER:-} ]] || return 0
  local name folder
  for name in apptainer singularity ''; do
    ! command -v "$name" >/dev/null || break
  done
  [[ -n $name ]] || die "no apptainer or singularity on the PATH: set MODULES to your site's"
  # Where mpirun found its own files, the container has none.
  inside=(env -u OPAL_PREFIX -u PMIX_PREFIX -u PRTE_PREFIX "$name" exec --nv --pwd "$REPO")
  for folder in "$REPO" "$OUTPUT" "$DATA" "${TMPDIR:-}"; do
    [[ $folder != /* || ! -d $folder ]] || inside+=(--bind "$folder") # preflight tells of a wrong DATA
  done
  if [[ -n ${STAGE_TO:-} ]]; then
    mkdir -p "$STAGE_TO" || die "cannot make $STAGE_TO: set STAGE_TO to a folder of every node's own disk"
    inside+=(--bind "$STAGE_TO")
  fi
  if [[ -n $cache ]]; then
    mkdir -p "$cache" || die "cannot make $cache: set --cache to a folder of every node's own disk"
    inside+=(--bind "$cache")
  fi
  inside+=("$CONTAINER")
  export PYTHONPATH=$REPO${PYTHONPATH:+:$PYTHONPATH}
}

# Sets `mpi`, mpirun and its options but for the number of ranks; `on_all` and `on_each_node`, how
# many; and `output`, which has each line say whose it is.
describe_mpirun() {
  command -v mpirun >/dev/null || die "no mpirun on the PATH: set MODULES to your site's MPI"
  local open_mpi within said
  open_mpi=$(open_mpi_of "$(mpirun --version 2>&1)")
  ((open_mpi >= 4)) || die "$(command -v mpirun) is not Open MPI 4 or newer: set MODULES to one"
  if [[ -n ${CONTAINER:-} ]]; then
    said=$("${inside[@]}" mpirun --version 2>&1) ||
      die "$CONTAINER does not run here, or has no mpirun: $(tail -n 1 <<<"$said")"
    within=$(open_mpi_of "$said")
    ((within == open_mpi)) ||
      die "$(command -v mpirun) is Open MPI $open_mpi and cannot start ranks in $CONTAINER, whose" \
        "Open MPI is $within: set MODULES to Open MPI $within"
  fi
  output=(--output tag)
  ((open_mpi >= 5)) || output=(--tag-output)
  on_each_node=(--map-by ppr:1:node)
  on_all=()
  [[ -z ${RANKS_PER_NODE:-} ]] || on_all=(--map-by "ppr:$RANKS_PER_NODE:node")
  # No binding: a rank's decoding threads need its share of the cores, which the job pins itself.
  mpi=(mpirun --bind-to none)
  [[ -z ${HOSTFILE:-} ]] || mpi+=(--hostfile "$HOSTFILE")
  local launchers=--prtemca out_of_band=prte # of mpirun's own connections
  ((open_mpi >= 5)) || { launchers=--mca out_of_band=oob_tcp; }
  if [[ -n ${NETWORK_INTERFACE:-} ]]; then
    export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-$NETWORK_INTERFACE}
    mpi+=(--mca btl_tcp_if_include "$NETWORK_INTERFACE")
    mpi+=("$launchers" "${out_of_band}_if_include" "$NETWORK_INTERFACE")
  else
    export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-^lo,docker0}
    mpi+=(--mca btl_tcp_if_exclude "127.0.0.1/8,lo,docker0")
    mpi+=("$launchers" "${out_of_band}_if_exclude" docker0)
  fi
  # InfiniBand and RoCE: NCCL finds the adapters by itself and TCP then only carries its set-up;
  # `NCCL_DEBUG=INFO sbatch ...` shows NET/IB if it did. Where it must be told:
  #   NCCL_IB_HCA=mlx5_0,mlx5_1     which adapters
  #   NCCL_IB_GID_INDEX=3           RoCE v2, as `show_gids` lists it; also NCCL_IB_TC for its class
  #   NCCL_IB_DISABLE=1             TCP instead, to see whether InfiniBand is what fails
  #   OMPI_MCA_pml=ucx              Open MPI over InfiniBand (UCX), where the site built it so
  # All variables of these names go to all ranks, but what a container's runtime says of one node:
  local name
  for name in $(compgen -e | grep -E '^(PATH|LD_LIBRARY_PATH|PYTHONPATH|TORCH.*|(NCCL|HOROVOD|UCX|OMP|OPENBLAS|CUDA_DEVICE|PYTORCH|CUBLAS|NVIDIA|DALI|TRITON|HF|AWS|MLFLOW|WANDB|APPTAINER|SINGULARITY)_.*)$'); do
    [[ $name =~ ^NVIDIA_(VISIBLE_DEVICES|DRIVER_CAPABILITIES|REQUIRE_.*)$ ]] || mpi+=(-x "$name")
  done
}

# The same by srun, whose PMIx then takes mpirun's place.
describe_srun() {
  [[ -n ${SLURM_JOB_ID:-} ]] || die "LAUNCHER=srun works inside a job of Slurm: submit it by sbatch"
  local nodes=$SLURM_JOB_NUM_NODES ranks=${RANKS_PER_NODE:-1} said
  mpi=(srun --mpi=pmix --kill-on-bad-exit=1 --cpu-bind=none)
  output=(--label)
  on_each_node=(--ntasks="$nodes" --ntasks-per-node=1)
  on_all=(--ntasks=$((nodes * ranks)) --ntasks-per-node="$ranks")
  export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-${NETWORK_INTERFACE:-^lo,docker0}}
  if [[ -n ${NETWORK_INTERFACE:-} ]]; then
    export OMPI_MCA_btl_tcp_if_include=$NETWORK_INTERFACE
  else
    export OMPI_MCA_btl_tcp_if_exclude=127.0.0.1/8,lo,docker0
  fi
  # By Slurm's default some ranks leave MPI's start too early; their first message crashes another rank.
  export SLURM_PMIX_FENCE=${SLURM_PMIX_FENCE:-ring}
  # Two ranks that find each other: Slurm's plugin loads, and this MPI understands it.
  said=$("${mpi[@]}" --nodes=1 --ntasks=2 --ntasks-per-node=2 --overcommit "${inside[@]}" python -c \
    'from mpi4py import MPI; assert MPI.COMM_WORLD.size == 2, "its ranks do not find each other"' 2>&1) ||
    die "srun --mpi=pmix does not start ranks ($(grep -m 1 -iE 'pmi|error|fatal' <<<"$said" || tail -n 1 <<<"$said")):" \
      "leave out LAUNCHER, for mpirun, or have your site install Slurm's PMIx plugin"
}

# Each rank's output also in a file of $logs (Open MPI 5.0's directory of files loses some). A signal
# to a rank's group is for the rank alone, not for `tee`.
describe_output() {
  # shellcheck disable=SC2016 # expanded on each rank
  rank=(bash -c 'exec > >(trap "" USR1 TERM INT
      exec tee "$0/$HOSTNAME.rank-${OMPI_COMM_WORLD_RANK:-$SLURM_PROCID}.log") 2>&1
    exec "$@"' "$logs")
}

record_environment() {
  {
    date -Is
    echo "command: $0 $*"
    echo "code: $(git -C "$REPO" describe --always --dirty 2>/dev/null || echo 'no git')"
    echo "modules: ${LOADEDMODULES:-none}"
    "${mpi[0]}" --version | head -n 1
    echo "container: ${CONTAINER:-none}"
    "${inside[@]}" python --version
    nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | sort | uniq -c || true
    printf '%q ' "${mpi[@]}" "${on_all[@]}"
    echo
    compgen -e | grep -E '^(TORCH|(SLURM|CUDA|NCCL|HOROVOD|OMPI_MCA|PRTE|UCX|OMP|PYTORCH|CUBLAS|NVIDIA|DALI|TRITON)_)' | while read -r name; do
      echo "$name=${!name}"
    done
  } >"$logs/environment.txt"
}

# Without Slurm, or where it refuses, the caller has to start again.
requeue() {
  # The last task of a job array has the array's own number, which would stand for all of them.
  local state job=$SLURM_JOB_ID
  [[ -z ${SLURM_ARRAY_JOB_ID:-} ]] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
  state=$(squeue -h -j "$job" -o %T) || state=RUNNING # the controller is busy, perhaps
  [[ $state == RUNNING ]] || { # somebody else decided: scancel, or scontrol requeue
    say "job $job is $state: left as it is"
    return 0
  }
  if scontrol requeue "$job"; then
    trap - USR1 TERM INT
    sleep 60 # until Slurm ends this script: a code of its own might count as the job's end
  else
    say "cannot requeue job $job: OUTPUT=$OUTPUT with the same sbatch command goes on"
  fi
}

# Makes on every node the folders of its own that CONTAINER is bound to. Leaves the exit code in `code`.
make_bound_folders() {
  local folder bound=("${STAGE_TO:-}" "$cache")
  code=0
  for folder in ${CONTAINER:+"${bound[@]}"}; do
    [[ -z $folder ]] || ((code != 0)) || run "${mpi[@]}" "${on_each_node[@]}" mkdir -p "$folder"
  done
}

# One start: stage, check, train. Leaves the exit code in `code`.
start() {
  logs=$OUTPUT/logs/$(date +%Y%m%d-%H%M%S)
  make_output "$logs"
  describe_output
  record_environment "$@"
  say "output $OUTPUT, logs $logs"
  local data=$DATA
  make_bound_folders
  if [[ -n ${STAGE_TO:-} ]]; then
    ((code != 0)) ||
      run "${mpi[@]}" "${on_each_node[@]}" "${inside[@]}" python -m dali_pipeline.stage "$DATA" "$STAGE_TO"
    data=$STAGE_TO
  fi
  if ((code == 0 && ${PREFLIGHT:-1})); then
    local other=()
    [[ ${JOB:-train_imagenet.py} == *train_imagenet.py ]] || other=(--ignore-unknown)
    # shellcheck disable=SC2086 # several arguments
    run "${mpi[@]}" "${on_all[@]}" "${inside[@]}" python -m hvd_utils.preflight \
      --quick ${PREFLIGHT_ARGS:-} "${other[@]}" --data "$data" --output "$OUTPUT" "$@"
    ((code == 0)) || [[ -n $told ]] || say "preflight failed (PREFLIGHT=0 leaves it out)"
  fi
  if ((code == 0)); then
    run "${mpi[@]}" "${on_all[@]}" "${output[@]}" \
      "${rank[@]}" "${inside[@]}" python "${JOB:-train_imagenet.py}" --data "$data" --output "$OUTPUT" "$@"
  elif [[ -n $told ]] && ((code != EXIT_BAD_INPUT)); then # by the signal, which is no failure
    code=$EXIT_RESUME
  fi
}

# Check the variables, make OUTPUT, and find Python, the container and the launcher. Takes the job's options.
prepare() {
  : "${REPO:?set REPO to the root of the repository}"
  : "${OUTPUT:?set OUTPUT to the folder of the run}"
  [[ ${RANKS_PER_NODE:-1} =~ ^[1-9][0-9]*$ ]] || die "RANKS_PER_NODE is $RANKS_PER_NODE: set it to a number"
  [[ ${LAUNCHER:-mpirun} == mpirun || $LAUNCHER == srun ]] || die "LAUNCHER is $LAUNCHER: set it to mpirun or srun"
  if [[ -n ${CONTAINER:-} ]]; then
    [[ -e $CONTAINER ]] || die "no container $CONTAINER: build it from containers/, or set CONTAINER"
    CONTAINER=$(realpath "$CONTAINER")
  fi
  [[ -z $DATA || $DATA == digits || $DATA == *://* ]] || DATA=$(realpath -m "$DATA")
  OUTPUT=$(realpath -m "$OUTPUT")
  [[ -z ${HOSTFILE:-} ]] || HOSTFILE=$(realpath "$HOSTFILE")
  make_output "$OUTPUT"
  cd "$REPO"
  activate
  find_cache "$@"
  describe_container
  "describe_${LAUNCHER:-mpirun}"
}

launch() {
  [[ -n ${DATA:-} ]] || die "no data set: set DATA (or IMAGENET_DIR) to a folder with train/ and val/"
  [[ " $* " != *" --output"* && " $* " != *" --data"* ]] ||
    die "--output and --data are set by the variables OUTPUT and DATA"
  [[ ${PREFLIGHT:-1} == [01] ]] || die "PREFLIGHT is $PREFLIGHT: set it to 1, or to 0 to leave it out"
  [[ ${MAX_FAILURES:-3} =~ ^[0-9]+$ ]] || die "MAX_FAILURES is $MAX_FAILURES: set it to a number"
  prepare "$@"
  local verdict
  while true; do
    start "$@"
    [[ -z $told || -n ${SLURM_JOB_ID:-} ]] || exit "$code" # by whoever started this script
    verdict=0
    "${inside[@]}" python -m hvd_utils.requeue "$OUTPUT" --code "$code" ${told:+--told} \
      --max-failures "${MAX_FAILURES:-3}" || verdict=$?
    ((verdict == EXIT_RESUME)) || exit "$verdict"
    if [[ -n ${SLURM_JOB_ID:-} ]]; then
      requeue
      exit "$EXIT_RESUME"
    fi
  done
}
