"""Tenancy: tenants, their keys, the registry of their records and the audit of every change."""
