"""Answers to held-out prompts become the promotion report."""
