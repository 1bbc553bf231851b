"""Telemetry: what users do with each answer, as immutable and idempotent events."""
