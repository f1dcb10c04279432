#!/bin/sh
# Resolve pyproject.toml with the uv at $1 into the locks of requirements/: every package, version and hash, for
# every Python and platform at once. dev.txt comes first and the others follow it: all fit into one environment.
set -eu

uv=$1
shift
lock() {
    "$uv" pip compile --quiet --generate-hashes --no-emit-index-url \
        --custom-compile-command "make lock" "$@"
}
everywhere="--universal --python-version 3.11"

lock pyproject.toml $everywhere --extra dev --output-file requirements/dev.txt "$@"
for extra in serve aws gcp azure redis cache rag semantic pgvector otel new load; do
    lock pyproject.toml $everywhere --extra "$extra" --constraints requirements/dev.txt \
        --output-file "requirements/$extra.txt" "$@"
done
# What projects made of templates/ check themselves with, besides their cloud's packages.
project() {
    cloud=$1
    shift
    printf '%s\n' pytest ruff uv pyyaml "$@" |
        lock - $everywhere --constraints requirements/dev.txt --output-file "requirements/project-$cloud.txt"
}
project aws awslambdaric
project gcp jsonschema python-hcl2
project azure pycep-parser
echo hatchling |
    lock - $everywhere --constraints requirements/dev.txt --output-file requirements/build.txt "$@"

# Outside the resolution: one says that it needs Python 3.13, of the other only a file is taken.
echo azure-functions-runtime==1.3.0 |
    lock - --no-deps --python-version 3.13 --output-file requirements/azure-runtime.txt
echo aws-sam-cli==1.170.0 | lock - --no-deps --python-version 3.13 --output-file requirements/aws-rie.txt
