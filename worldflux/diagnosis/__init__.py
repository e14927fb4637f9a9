"""Why a run does not learn: evidence of a run, checks of it, and the causes that they find."""
