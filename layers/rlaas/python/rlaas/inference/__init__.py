"""Inference: render the policy's prompt, ask its backend, store what was said and why."""
