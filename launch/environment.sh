# Sourced by the other scripts of this folder: where things are, and an installation that is made once and
# kept up to date. Sets ROOT (the checkout) and VENV; offers fail, default_workdir and install_r1jax.
#
#   R1JAX_VENV                the virtual environment (default: .venv in the checkout)
#   JAX_COMPILATION_CACHE_DIR where compiled programs are kept (default: ~/.cache/r1jax/jax)

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${R1JAX_VENV:-$ROOT/.venv}"
case "$VENV" in /*) ;; *) VENV="$PWD/$VENV" ;; esac

# jax keeps compiled programs here, so that a second start skips most of the compilation. By default it keeps
# only those that took a second or more, which would leave out most programs of a small model.
CACHE="${XDG_CACHE_HOME:-${HOME:-$ROOT}/.cache}"
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$CACHE/r1jax/jax}"
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="${JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS:-0.1}"

# XLA allocates its temporaries anew at every call, and glibc gives large blocks back to the system at once, so that much
# of the time on a CPU goes into page faults. With these settings it keeps them. Mapping is switched off rather than limited:
# on Python 3.11 TensorFlow's generator datasets set the threshold for it to 128 KiB, whatever stands here (the SFT of
# experiments/tiny/r1.py ran at 2,050 tokens/s with 120,000 page faults a second then, and at 3,100 with none now). With the
# others set, the last one took experiments/bench/train_step.py --devices=2 --rows=4 from 6,352 to 6,909 and, taking turns,
# from 6,213 to 8,011 tokens/s.
export MALLOC_MMAP_MAX_="${MALLOC_MMAP_MAX_:-0}"
export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-8589934592}"
export MALLOC_TOP_PAD_="${MALLOC_TOP_PAD_:-268435456}"
export MALLOC_ARENA_MAX="${MALLOC_ARENA_MAX:-1}"

SUPPORTED='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'

fail() {
    echo "$(basename "$0"): $1" >&2
    exit "${2:-2}"
}

find_python() {
    local name
    for name in python3.11 python3.12 python3.13 python3 python; do
        command -v "$name" > /dev/null || continue
        if "$name" -c "import venv, ensurepip; $SUPPORTED" > /dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    fail 'no Python 3.11, 3.12 or 3.13 with venv and pip is on the PATH (Debian: apt install python3.11-venv)'
}

# default_workdir NAME ARG...: sets WORKDIR to the flag for the folder of that name among all runs, to nothing where
# the arguments name a folder themselves.
default_workdir() {
    local word
    WORKDIR=("--workdir=${R1JAX_RUNS:-$ROOT/runs}/$1")
    for word in "${@:2}"; do
        case "$word" in --workdir | --workdir=*) WORKDIR=() ;; esac
    done
}

# What is to be installed. The folder .r1jax in the environment records, for each extra, what has been.
state() {
    echo "$ROOT $(cat "$ROOT/setup.py" "$ROOT/constraints.txt" | cksum)"
}

is_installed() {
    local extra
    for extra in ${1//,/ }; do
        [ "$(cat "$VENV/.r1jax/$extra" 2> /dev/null)" = "$(state)" ] || return 1
    done
}

# install_r1jax EXTRAS ('data' or 'data,test'): makes the environment where there is none, and installs where
# that has not been done since setup.py or constraints.txt changed. Runs started at once wait for each other.
install_r1jax() {
    exec 9< "$ROOT/setup.py"
    if command -v flock > /dev/null; then flock 9; fi
    is_installed "$1" || install_now "$1"
    exec 9<&-
}

install_now() {
    local extra python
    if [ -e "$VENV" ] && [ ! -e "$VENV/pyvenv.cfg" ] && [ -n "$(ls -A "$VENV")" ]; then
        fail "$VENV exists and is no virtual environment; set R1JAX_VENV to another folder"
    fi
    if ! "$VENV/bin/python" -m pip --version > /dev/null 2>&1; then
        python="$(find_python)"
        echo "making the virtual environment $VENV"
        "$python" -m venv "$VENV" || fail "could not make $VENV (see above)" 1
    fi
    "$VENV/bin/python" -c "$SUPPORTED" 2> /dev/null ||
        fail "$VENV is not of Python 3.11 to 3.13; remove it, or set R1JAX_VENV to another folder"
    echo "installing r1jax with [$1] into $VENV (several minutes the first time)"
    "$VENV/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
        --editable "$ROOT[$1]" --constraint "$ROOT/constraints.txt" ||
        fail 'pip could not install it (see above)' 1
    mkdir -p "$VENV/.r1jax"
    for extra in ${1//,/ }; do state > "$VENV/.r1jax/$extra"; done
}
