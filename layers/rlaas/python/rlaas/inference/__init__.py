"""Inference: a request decided, asked, checked and recorded."""
