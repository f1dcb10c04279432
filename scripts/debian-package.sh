#!/bin/sh
# Install the Debian package $1 as root. Without root, say that it is missing; the caller goes on without it.
set -eu

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "make: installing the Debian package $1"
    export DEBIAN_FRONTEND=noninteractive
    install="apt-get install --yes --quiet=2 --no-install-recommends $1"
    if $install >/dev/null 2>&1 || { apt-get update --quiet=2 && $install >/dev/null; }; then
        exit 0
    fi
fi
echo "make: $1 is missing; install it with: sudo apt-get install $1" >&2
