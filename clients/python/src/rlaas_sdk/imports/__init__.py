"""Bringing existing logs in: files of other tools, row by row, as events sent in batches."""
