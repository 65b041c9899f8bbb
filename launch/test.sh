#!/usr/bin/env bash
# Runs the tests: makes a virtual environment, installs r1jax with what they need, runs pytest on every core.
#
#   bash launch/test.sh [pytest's arguments; paths from the checkout's top, as in tests/rewards -k format]
#
# Slow tests are left out; `-m slow` runs them alone. Programs are run in sandboxes: bubblewrap is installed where it is
# missing and apt-get may be used; without it their tests go on with what there is. R1JAX_VENV is the virtual environment
# (default: .venv in the checkout).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

install_bubblewrap() {
    local sudo=()
    command -v bwrap > /dev/null && return
    command -v apt-get > /dev/null || return 0
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2> /dev/null || return 0
        sudo=(sudo -n)
    fi
    export DEBIAN_FRONTEND=noninteractive
    "${sudo[@]}" apt-get install -qq -y --no-install-recommends bubblewrap > /dev/null 2>&1 && return
    "${sudo[@]}" apt-get update -qq > /dev/null 2>&1 || return 0
    "${sudo[@]}" apt-get install -qq -y --no-install-recommends bubblewrap > /dev/null 2>&1 || return 0
}

install_bubblewrap
install_r1jax data,test
cores="$(nproc 2> /dev/null || getconf _NPROCESSORS_ONLN)"
cd "$ROOT"
# A file's tests stay in one process, because they share compiled programs.
exec "$VENV/bin/python" -m pytest -n "$((cores < 8 ? cores : 8))" --dist loadfile -m 'not slow' "$@"
