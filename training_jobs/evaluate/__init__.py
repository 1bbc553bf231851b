"""Make the promotion report from answers to held-out prompts."""
