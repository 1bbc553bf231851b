"""Metering: what requests may cost and did: prices, budgets, ceilings, the ledger of reservations."""
