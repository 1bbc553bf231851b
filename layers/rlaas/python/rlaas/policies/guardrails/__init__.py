"""Guardrails: what a policy lets in and out, and how each one looks."""
