"""Adapters: what the rooms ask for, done by AWS, by the vendors of models and by Presidio."""
