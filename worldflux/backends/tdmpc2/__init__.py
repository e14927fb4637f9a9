"""Delegated runs of the official TD-MPC2."""
