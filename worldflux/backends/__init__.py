"""Delegated execution of official implementations."""
