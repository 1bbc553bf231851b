"""Tenancy: tenants, their keys, the registry of their documents and the audit of every change."""
