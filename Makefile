# Two commands of the README: make demo, make test. Each sets up what it needs (.venv, pinned).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
# Compiling all that is installed takes half of the time; Python compiles what it imports, once.
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt
# What the tests need in addition: every namespace of environments, data and loggers.
EXTRAS := dev,docs,video,dashboard,dmc,atari,mujoco,minari,hdf5,lerobot,tensorboard,hub,export,slurm,sweep
# One thread per process; many tests wait for time-outs, so three workers keep two cores busy.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: setup setup-dev test lint docs demo demo-cartpole learn learn-shards learn-finetune learn-tasks \
	export-parity learn-offline-to-online prove \
	learn-dreamer learn-dreamer-gpu learn-r2 matrix cases torture sweep-kills \
	torture-shards bench-shards fuzz \
	verify-study why-study trust-study what-if-study packaging bench bench-peers bench-serve gpu clean

setup: $(STAMP)

setup-dev: $(DEV_STAMP)

$(STAMP) $(DEV_STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "worldflux needs Python 3.11 or newer: make PYTHON=python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[$(if $(filter $(DEV_STAMP),$@),$(EXTRAS),video,dashboard)]'
	touch $(STAMP) $@

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Golden numbers by themselves: their mode of MKL multiplies at less than half of the speed.
test: lint
	$(ONE_THREAD) $(BIN)/python -m pytest -n 3 --dist worksteal -q --ignore tests/golden
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -q tests/golden

# The documentation as a site in build/site: open index.html, it needs no server and no network.
docs: setup-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build -q -f docs/site/mkdocs.yml --strict

# From an empty folder to an agent that learned; fails if it did not.
demo: setup
	rm -rf demo
	$(BIN)/worldflux init demo --yes
	cd demo && $(ONE_THREAD) ../$(BIN)/worldflux train
	cd demo && $(ONE_THREAD) ../$(BIN)/worldflux eval --episodes 20
	cd demo && $(ONE_THREAD) ../$(BIN)/worldflux verify --target outputs --mode quick

# The same with discrete actions: DreamerV3 on CartPole; fails unless 450 is sure.
demo-cartpole: setup
	rm -rf demo-cartpole
	$(BIN)/worldflux init demo-cartpole --yes --env CartPole-v1
	cd demo-cartpole && $(ONE_THREAD) ../$(BIN)/worldflux train
	cd demo-cartpole && $(ONE_THREAD) ../$(BIN)/worldflux eval --episodes 20
	cd demo-cartpole && $(ONE_THREAD) ../$(BIN)/worldflux verify --target outputs --mode quick

# Five seeds of CartPole, Catch and Pendulum with dreamerv3:laptop, two at a time.
learn-dreamer: setup-dev
	$(ONE_THREAD) $(BIN)/python tests/learning/learn_dreamer.py --task cpu --seeds 5 --jobs 2 \
		--pictures docs/images

# Catch with and without a decoder, five seeds of each, one run at a time: about three hours of a core.
learn-r2: setup-dev
	$(BIN)/python tests/learning/learn_r2.py

# Hours on a GPU: walker-walk from state with official_1m, and Boxing.
learn-dreamer-gpu: setup-dev
	$(BIN)/python tests/learning/learn_dreamer.py --task gpu --seeds 1 \
		--pictures docs/images

# Ten seeds of the demo's project, two at a time; prints the table of docs/results.md.
learn: setup
	$(ONE_THREAD) $(BIN)/python tests/learning/learn_pendulum.py --seeds 10 --jobs 2

# Three pendulums of different mass, one agent and three single ones with the same steps of each.
learn-tasks: setup
	$(ONE_THREAD) $(BIN)/python tests/learning/learn_tasks.py

# A pendulum with another mass, from a trained run and from scratch: environment steps, five seeds.
learn-finetune: setup
	$(ONE_THREAD) $(BIN)/python tests/learning/learn_finetune.py

# Pendulum from recorded data, from collected experience, and from both in turn; three seeds.
learn-offline-to-online: setup-dev
	$(ONE_THREAD) $(BIN)/python tests/learning/offline_to_online.py

# The same with five seeds, over two shards and without.
learn-shards: setup
	$(ONE_THREAD) $(BIN)/python tests/learning/learn_pendulum.py --seeds 5 --jobs 2 --set distributed.shards=2
	$(ONE_THREAD) $(BIN)/python tests/learning/learn_pendulum.py --seeds 5 --jobs 2

# The published algorithms at a laptop's sizes against the published curves: 20 hours of a core, as much
# of it as BUDGET minutes allow, only the studies ONLY. Finished runs are kept in docs/evidence/.
prove: setup-dev
	$(ONE_THREAD) MUJOCO_GL=disabled $(BIN)/python tests/learning/prove.py --picture docs/images/prove.png \
		$(if $(BUDGET),--budget-minutes $(BUDGET)) $(if $(ONLY),--only $(ONLY))

# Every kind of environment with every family that takes it, 200 updates each.
matrix: setup-dev
	$(ONE_THREAD) $(BIN)/python tests/envs/matrix.py

# Inputs that strangers brought, each with what worldflux has to say to it.
CASES ?= ../shared/cases
cases: setup-dev
	$(BIN)/python tests/cases/run_cases.py $(CASES)

# What a run survives: kills, signals, bit flips, full disks, non-finite numbers, leaks.
# tests/faults/test_torture.py runs the short form.
torture: setup-dev
	$(ONE_THREAD) $(BIN)/python tests/torture/torture.py

# Runs over four shards in 1, 2 and 4 processes, killed at random; tests/project/test_sharding.py runs
# the short form.
torture-shards: setup-dev
	$(ONE_THREAD) $(BIN)/python tests/torture/shards.py --jobs 2

# Exported policies next to their agents over 10,000 states, the page in node and in Chromium.
export-parity: setup-dev
	$(ONE_THREAD) $(BIN)/python tests/benchmarks/export_parity.py

# Two processes of one thread against one, with the same shards, and against a run without shards.
bench-shards: setup-dev
	$(ONE_THREAD) $(BIN)/python tests/benchmarks/bench_shards.py

# Sweeps whose workers are killed twenty times, next to undisturbed ones: one worker with TPE and a
# pruner, two workers with random values.
sweep-kills: setup-dev
	$(ONE_THREAD) $(BIN)/python tests/torture/sweeps.py --kills 20
	$(ONE_THREAD) $(BIN)/python tests/torture/sweeps.py --kills 20 --workers 2

# The property tests of maths, files and names with as many examples as their promises ask for.
fuzz: setup-dev
	$(ONE_THREAD) WORLDFLUX_TEST_EXAMPLES=1000 $(BIN)/python -m pytest -n 2 -q tests/properties
	$(ONE_THREAD) WORLDFLUX_TEST_EXAMPLES=5000 $(BIN)/python -m pytest -n 2 -q \
		tests/project/test_loader.py tests/project/test_scaffold.py
	$(ONE_THREAD) WORLDFLUX_TEST_EXAMPLES=500 $(BIN)/python -m pytest -n 2 -q tests/project/test_update.py

# What verify says of trained, untrained and tampered runs, twenty seeds each; a seed whose rows are
# in verify-study/ is not repeated.
verify-study: setup-dev
	$(ONE_THREAD) $(BIN)/python tests/learning/verify_study.py --seeds 20 --jobs 2

# What `worldflux trust` promises, over 24 short runs, and twenty on shuffled actions; a row in
# trust-study/ is not repeated.
trust-study: setup-dev
	$(ONE_THREAD) $(BIN)/python tests/learning/trust_study.py

# 200 random moments of recorded episodes with other actions: does reality come out bit for bit?
what-if-study: setup-dev
	$(ONE_THREAD) $(BIN)/python tests/learning/what_if_study.py

# Faults injected into small runs, and what why says of them; a run whose row is there is not repeated.
why-study: setup-dev
	$(ONE_THREAD) $(BIN)/python tests/learning/why_study.py --set report --out why-study.jsonl

# Wheel and sdist, checked and installed in new environments by pip, uv and pipx, each Python and
# torch that is promised; gigabytes of downloads. UPDATES=300 shortens the training.
packaging:
	$(PYTHON) tests/packaging/fresh_installs.py $(if $(UPDATES),--updates $(UPDATES))

# One table, and the same as JSON in OUT (bench.json); about 12 minutes of an idle machine.
bench: setup-dev
	$(BIN)/python tests/benchmarks/bench.py $(if $(OUT),--out $(OUT))

# DreamerV3 beside sheeprl's, eager and compiled, on an idle machine. sheeprl asks for an older pillow
# than our pins, so it has an environment of its own; its first compilation takes minutes.
PEERS := $(VENV)/peers
bench-peers: setup-dev
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install -q --disable-pip-version-check sheeprl==0.8.4 \
		$$(grep -i ^torch== constraints.txt)
	$(BIN)/python tests/benchmarks/bench_peers.py --sheeprl $(PEERS)/bin/python --compiled

# Ten minutes of a 50 Hz environment while a learner and a load keep the cores busy.
bench-serve: setup-dev
	$(BIN)/python tests/benchmarks/bench_serve.py $(if $(MINUTES),--minutes $(MINUTES))

# On a machine with a GPU, by an interpreter whose torch finds it: the tests that need one, then an
# update and an action of every family, at most 12 minutes in all.
GPU_PYTHON ?= python3
gpu:
	$(GPU_PYTHON) -m pytest -q tests/training/test_cuda_graphs.py tests/core/test_saved_outputs.py \
		tests/project/test_resumption.py -k "graph or moved or gpu" -W default
	$(GPU_PYTHON) tests/benchmarks/bench_gpu.py --minutes 9

clean:
	rm -rf $(VENV) demo demo-cartpole build/site
