"""Wiring for Lambda: the typed environment, HTTP in and out, logs and metrics."""
