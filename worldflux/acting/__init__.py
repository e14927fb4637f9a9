"""A trained agent outside of training: in the user's own loop, with the user's own values."""

DEFAULT_HZ = 50.0
DEFAULT_PORT = 8780
