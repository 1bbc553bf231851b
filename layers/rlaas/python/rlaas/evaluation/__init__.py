"""Evaluation: how good a candidate is on threads nobody trained on, with intervals, and the promotion report that
decides on it."""
