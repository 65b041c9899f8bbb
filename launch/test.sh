#!/usr/bin/env bash
# Runs the tests: makes a virtual environment, installs r1jax with what they need, runs pytest on every core.
#
#   bash launch/test.sh [pytest's arguments; paths from the checkout's top, as in tests/rewards -k format]
#
# Slow tests are left out; `-m slow` runs them alone. R1JAX_VENV is the virtual environment (default: .venv in
# the checkout).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

install_r1jax data,test
cores="$(nproc 2> /dev/null || getconf _NPROCESSORS_ONLN)"
cd "$ROOT"
# A file's tests stay in one process, because they share compiled programs.
exec "$VENV/bin/python" -m pytest -n "$((cores < 8 ? cores : 8))" --dist loadfile -m 'not slow' "$@"
