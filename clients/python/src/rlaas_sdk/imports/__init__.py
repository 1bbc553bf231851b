"""Imports existing logs: reads files of other tools row by row and sends what they hold as events, in batches."""
