"""Training: `Trainer`, `TrainingConfig`, `ReplayBuffer`. Names are handed on lazily."""
