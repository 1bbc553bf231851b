"""Policies: immutable bundles that answer requests, each with a backend, a prompt and guardrails."""
