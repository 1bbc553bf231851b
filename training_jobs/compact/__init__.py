"""Merge a day's many small files of the lake into few large ones."""
