#!/bin/sh
# Install the Node programs that the lock in folder $1 names. Exits with 3 when there is no Node to run them.
set -eu

if ! command -v npm >/dev/null || ! node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)'; then
    echo "make: Node 20 or newer with npm is missing; the tests that drive azurite and osls need it" >&2
    exit 3
fi
echo "make: installing $1/package-lock.json"
cd "$1"
exec npm ci --loglevel=error
