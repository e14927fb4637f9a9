"""What lives in a user's folder: worldflux.toml, the scaffold, and a run wired together."""
