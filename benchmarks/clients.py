"""How clients that nobody here wrote fare against a laptop cloud: the table of tests/clients, client by client."""

import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.result import report
from local import apart
from tests.clients.table import CLIENTS, FEATURES, install_clients, open_desk
from tests.laptop_cloud import LaptopCloud

SIGNS = {"passed": "+", "refused_clearly": "r", "failed": "F", "": ""}


def main() -> None:
    """Examine every client, and report the table and how often each result is in it."""
    install_clients()
    rows: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        with apart.start_cloud(state) as running, open_desk(LaptopCloud(running, state)) as desk:
            for client in CLIENTS:
                outcomes = desk.examine(client)
                rows[client.name] = {"version": client.version, **{feature: one.result for feature, one in outcomes.items()}}
                for feature, outcome in outcomes.items():
                    if outcome.result == "failed":
                        print(f"{client.name} {feature}: {outcome.what}", flush=True)
    print(" ".join(["client".ljust(22), *FEATURES]))
    for name, row in rows.items():
        print(" ".join([name.ljust(22), *(SIGNS[row.get(feature, "")].ljust(len(feature)) for feature in FEATURES)]))
    counts = Counter(result for row in rows.values() for feature, result in row.items() if feature in FEATURES)
    figures = {result: counts[result] for result in ("passed", "failed", "refused_clearly")}
    report("clients", "make bench-clients", figures, table=rows)


if __name__ == "__main__":
    main()
