"""Guardrails: the checks that a policy makes of requests and answers."""
