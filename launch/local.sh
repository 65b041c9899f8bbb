#!/usr/bin/env bash
# Runs an experiment here: makes a virtual environment, installs r1jax, runs, and says where the report is.
#
#   bash launch/local.sh EXPERIMENT.py[:ARG] [--config.KEY=VALUE ...] [--workdir=DIR] [--only=STAGE]
#
# Needs Python 3.11, 3.12 or 3.13 with venv and pip; works from any folder and without root. The same command
# goes on with a run that was interrupted. Variables: R1JAX_RUNS is the folder of all runs (default: runs in
# the checkout), R1JAX_VENV the virtual environment (default: .venv in the checkout).
#
# jax chooses the device: an accelerator where its plugin is installed (pip install 'jax[cuda12]' or
# 'jax[tpu]' in that environment), else the CPU; JAX_PLATFORMS=cpu forces the CPU.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

case "${1:-}" in
    '' | -h | --help)
        sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
        echo 'Experiments:'
        (cd "$ROOT" && grep -rl --include='*.py' '^def get_config' experiments | sort | sed 's/^/  /')
        [ -n "${1:-}" ] && exit 0 || exit 2
        ;;
esac

file="${1%%.py:*}"
arg=''
if [ "$file" != "$1" ]; then
    file="$file.py"
    arg="${1#*.py:}"
fi
shift
# A path is that of the caller's folder or, so that the commands of the README work anywhere, of the checkout.
[ -f "$file" ] || file="$ROOT/$file"
[ -f "$file" ] ||
    fail "there is no experiment file '${file#"$ROOT"/}'; bash launch/local.sh --help lists them"

# Another argument is another experiment, so it gets a folder of its own.
name="${file##*experiments/}"
case "$name" in /*) name="$(basename "$name")" ;; esac
name="$(printf %s "${name%.py}${arg:+-$arg}" | tr -c 'A-Za-z0-9_.-' '-')"
default_workdir "$name" "$@"

install_r1jax data
exec "$VENV/bin/python" -m r1jax run --config="$file${arg:+:$arg}" ${WORKDIR[@]+"${WORKDIR[@]}"} "$@"
