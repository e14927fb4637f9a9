"""The contract every family keeps. Names are handed on lazily: `core.config` needs no torch."""
