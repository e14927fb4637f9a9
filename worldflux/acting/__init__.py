"""A trained agent outside of training: in the user's own loop, with the user's own values."""
