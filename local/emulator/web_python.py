"""`python` for a function that is a web server: `python -I -S web_python.py LAYERS ARGUMENTS...`, standard library
only.

AWS unpacks all layers over each other under /opt; here each has its own directory (LAYERS, JSON; the last one wins),
and these replace `/opt/python` where PYTHONPATH names it. Nothing else is on the path: no site-packages, nothing of the
emulator's.

On AWS only the adapter reaches the server; here http.server's requests must carry the adapter's key (RLAAS_ADAPTER_KEY,
which the function does not see).
"""

import hmac
import http.server
import json
import os
import runpy
import sys
from pathlib import Path


def _for_the_adapter_alone(key: str) -> None:
    parse = http.server.BaseHTTPRequestHandler.parse_request

    def parse_request(self: http.server.BaseHTTPRequestHandler) -> bool:
        if not parse(self):
            return False
        if not hmac.compare_digest(self.headers.get("x-rlaas-adapter-key", "").encode(), key.encode()):
            self.send_error(403)
            return False
        del self.headers["x-rlaas-adapter-key"]
        return True

    http.server.BaseHTTPRequestHandler.parse_request = parse_request  # type: ignore[method-assign]


def main() -> None:
    """Run the script, or with `-m` the module, as `python` would."""
    layers, arguments = json.loads(sys.argv[1]), sys.argv[2:]
    _for_the_adapter_alone(os.environ.pop("RLAAS_ADAPTER_KEY"))
    for entry in reversed(os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        for directory in [f"{layer}/python" for layer in layers] if entry == "/opt/python" else [entry]:
            if directory:
                sys.path.insert(0, directory)
    if arguments[0] == "-m":
        sys.path.insert(0, str(Path.cwd()))
        sys.argv = arguments[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
