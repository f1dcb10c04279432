#!/bin/sh
# Measure what somebody waits for who starts with a template: from `cookiecutter` to the first streamed token, with a
# virtual environment of the project's own. Usage: scripts/try_template.sh aws|gcp|azure [SOURCE]; RUNTIME=aws (or
# gcp, azure) serves through the cloud's own runtime, PORT=8099 takes another port.
set -eu

cloud=$1
root=$(cd "$(dirname "$0")/.." && pwd)
source=${2:-$root}
port=${PORT:-8099}
folder=$(mktemp -d)
server=
stop() {
    # `make` and what it started are one group.
    [ -z "$server" ] || kill -s TERM -- "-$server" 2>/dev/null || true
    rm -rf "$folder"
}
trap stop EXIT INT TERM
seconds() { echo $(($(date +%s) - started)); }

if curl --silent --output /dev/null "http://127.0.0.1:$port/"; then
    echo "try_template: PORT=$port is taken; expected a free one" >&2
    exit 1
fi
started=$(date +%s)
"$root/.venv/bin/cookiecutter" --no-input --output-dir "$folder" --directory "templates/$cloud" \
    "$source" project_name="Try $cloud"
echo "$(seconds) s: project made, $(find "$folder/try-$cloud" -type f | wc -l) files," \
    "$(du -sk "$folder/try-$cloud" | cut -f1) KiB"

cd "$folder/try-$cloud"
setsid make serve PORT="$port" RUNTIME="${RUNTIME:-}" >"$folder/log" 2>&1 &
server=$!
body='{"model": "chat", "stream": true, "messages": [{"role": "user", "content": "Hello!"}]}'
until curl --silent --no-buffer --max-time 30 "http://127.0.0.1:$port/v1/chat/completions" \
    --header 'content-type: application/json' --data "$body" 2>/dev/null | grep --quiet '^data: \[DONE\]'; do
    if ! kill -0 "$server" 2>/dev/null || [ "$(seconds)" -gt 600 ]; then
        cat "$folder/log" >&2
        echo "try_template: no streamed answer after $(seconds) s" >&2
        exit 1
    fi
    sleep 0.2
done
echo "$(seconds) s: streamed answer from http://127.0.0.1:$port, $(du -sm .venv | cut -f1) MB of packages"
