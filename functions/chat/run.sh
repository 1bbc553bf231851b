#!/bin/sh
# What Lambda Web Adapter starts in place of the runtime's own loop; that loop would put the layers on the path.
PYTHONPATH=/opt/python exec python3 "$LAMBDA_TASK_ROOT/handler.py"
