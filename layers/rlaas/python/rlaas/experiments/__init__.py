"""Experiments: what is known of each arm, in numbers: bandits, sequential tests, evidence of harm."""
