#!/bin/sh
# Install what functions/aws needs on Lambda (Python 3.13, arm64) with the uv at $1 into folder $2, whatever
# machine this is: only wheels are taken, nothing is built.
set -eu

rm -rf "$2"
"$1" pip install --quiet --target "$2" --python-version 3.13 --python-platform aarch64-manylinux2014 \
    --only-binary :all: --no-deps --require-hashes --requirement requirements/aws.txt
find "$2" -name __pycache__ -type d -prune -exec rm -rf {} +
du -sh "$2"
