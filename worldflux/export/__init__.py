"""A trained policy as a program that runs without worldflux, each with a certificate."""
