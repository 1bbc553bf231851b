"""`python` for a function that is a web server: `python -I -S web_python.py CONTROL LAYERS ARGUMENTS...`, standard
library only.

AWS unpacks all layers over each other under /opt; here each has its own directory (LAYERS, JSON; the last one wins),
and these replace `/opt/python` where PYTHONPATH names it. Nothing else is on the path: no site-packages, nothing of the
emulator's.

When the script's server is to serve, its process becomes the template of the function's environments (CONTROL is the
descriptor of the template's socket, see lambda_worker.py), and each environment serves on a port of its own.
"""

import importlib
import json
import os
import runpy
import socket
import socketserver
import sys
from pathlib import Path


def _fork_when_served(control: socket.socket) -> None:
    """Have the first server that is to serve for ever do so in environments that are forked from this process."""
    sys.path.insert(0, str(Path(__file__).parent))
    worker, adapter = importlib.import_module("lambda_worker"), importlib.import_module("web_adapter")
    del sys.path[0]
    stock = socketserver.BaseServer.serve_forever

    def serve_forever(self: socketserver.TCPServer, poll_interval: float = 0.5) -> None:
        socketserver.BaseServer.serve_forever = stock  # type: ignore[method-assign]  # see below
        worker.mark_log("init")
        control.send(json.dumps({"status": "ready"}).encode())
        worker.serve(worker.fork_on_demand(control), lambda: adapter.WebServer(self, stock))

    # The server belongs to the function's own code, so its class is what can be changed; in the child it is put back.
    socketserver.BaseServer.serve_forever = serve_forever  # type: ignore[assignment,method-assign]
    worker.capture_output()


def main() -> None:
    """Run the script, or with `-m` the module, as `python` would."""
    control, layers, arguments = socket.socket(fileno=int(sys.argv[1])), json.loads(sys.argv[2]), sys.argv[3:]
    control.set_inheritable(False)
    _fork_when_served(control)
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
