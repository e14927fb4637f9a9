"""Random moments of recorded episodes with random actions from there on: is reality reproduced?

    make what-if-study    (200 moments; about ten minutes on two cores)

Four environments, both families where the actions allow it. Each moment is played again by
`worldflux imagine --from`'s own code, and compared bit for bit with Gymnasium's environment in this
process. Exits with 1 for any difference.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.what_if_runs import DREAMER, TDMPC2, differences, recorded_run
from worldflux.project.open_run import open_run

CASES = [
    ("Pendulum-v1", TDMPC2),
    ("dm_control/cartpole-balance-v0", TDMPC2),
    ("Pendulum-v1", DREAMER),
    ("CartPole-v1", DREAMER),
    ("worldflux/Catch-v0", DREAMER),
    ("dm_control/cartpole-balance-v0", DREAMER),
]
EPISODES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=200)
    arguments = parser.parse_args()
    rng, wrong, total = np.random.default_rng(0), 0, 0
    for index, (env, family) in enumerate(CASES):
        with tempfile.TemporaryDirectory() as place:
            run = open_run(recorded_run(Path(place), env, family, EPISODES), "last")
            count = len(range(index, arguments.moments, len(CASES)))
            found = [differences(run, int(rng.integers(EPISODES)), rng) for _ in range(count)]
        bad = [line for lines in found for line in lines]
        wrong, total = wrong + sum(map(bool, found)), total + count
        print(f"{env}, {family[0]}: {count - sum(map(bool, found))} of {count} the same", *bad)
    print(f"all: {total - wrong} of {total} bit for bit as a fresh rollout")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
