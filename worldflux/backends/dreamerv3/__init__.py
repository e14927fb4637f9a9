"""Delegated runs of the official DreamerV3."""
