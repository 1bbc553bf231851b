"""A day's many small files of the lake become few large ones."""
