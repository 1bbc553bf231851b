"""Policies: the immutable bundle that answers: its backend, its prompt, its guardrails."""
