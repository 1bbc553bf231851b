"""Routing: which policy answers a unit, and with what probability."""
