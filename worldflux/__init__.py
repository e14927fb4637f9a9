"""worldflux: world models for reinforcement learning in one tool."""
