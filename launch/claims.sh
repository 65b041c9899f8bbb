#!/usr/bin/env bash
# Measures the paper's claims in miniature: r1.py and two arms of r1_zero.py with three seeds, then the table.
#
#   bash launch/claims.sh [--workdir=DIR] [--seeds=N] [--table]
#
# The same command goes on with what was interrupted. Variables as in launch/local.sh.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
case "${1:-}" in
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
default_workdir tiny-claims "$@"
install_r1jax data
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
exec "$VENV/bin/python" -m experiments.tiny.claims ${WORKDIR[@]+"${WORKDIR[@]}"} "$@"
