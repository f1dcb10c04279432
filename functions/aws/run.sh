#!/bin/sh
# The alternative to our runtime: AWS's Lambda Web Adapter (a layer) in front of an ASGI server. Settings of the function:
#   Handler functions/aws/run.sh, AWS_LAMBDA_EXEC_WRAPPER=/opt/bootstrap, AWS_LWA_INVOKE_MODE=response_stream,
#   AWS_LWA_READINESS_CHECK_PATH=/readyz, PORT=8000
set -eu
root="${LAMBDA_TASK_ROOT:-/var/task}"
cd "$root"
PYTHONPATH="$root:$root/shared:/opt/python:${LAMBDA_RUNTIME_DIR:-/var/runtime}${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH
exec python3 -m uvicorn --host 127.0.0.1 --port "${PORT:-8000}" --no-access-log functions.aws.chat:app
