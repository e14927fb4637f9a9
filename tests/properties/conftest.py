"""Property tests have no time limit an example: the machine may be shared. `make fuzz`: more."""

from __future__ import annotations

import os

from hypothesis import settings

examples = int(os.environ.get("WORLDFLUX_TEST_EXAMPLES", "100"))
settings.register_profile("shared-machine", deadline=None, max_examples=examples)
settings.load_profile("shared-machine")
