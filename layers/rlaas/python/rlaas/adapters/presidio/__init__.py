"""Presidio: names and places found in text by a language model of spaCy."""
