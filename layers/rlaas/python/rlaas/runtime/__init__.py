"""Runtime: what every function stands on: the typed environment, logs, metrics, traces."""
