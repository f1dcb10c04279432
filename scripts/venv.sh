#!/bin/sh
# Make the virtual environment $1 with $PYTHON; when that is plain python3 and too old, with the newest other.
set -eu

here=$(dirname "$0")
candidates=${PYTHON:-python3}
if [ "$candidates" = python3 ]; then
    candidates="python3 python3.14 python3.13 python3.12 python3.11"
fi
for python in $candidates none; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        break
    fi
done
if [ "$python" = none ]; then
    echo "make: Python 3.11 or newer is needed; name one with PYTHON=/path/to/python3" >&2
    exit 1
fi

# Debian keeps the part of venv that brings pip in a package of its own.
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    "$here/debian-package.sh" "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    "$python" -c 'import ensurepip' 2>/dev/null || exit 1
fi
exec "$python" -m venv --clear "$1"
