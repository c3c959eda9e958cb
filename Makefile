# Every target sets up .venv by itself; the only need is Python 3.11 or newer.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
FLAGS ?=

.PHONY: reproduce statistics paper paper-small test check slow mutants campaign coverage exactness compile-check cluster-test device-check test-newest bench bench-compare clean

# The main job: flow against HMC at the paper's point, into runs/reproduce/. Killed, it goes on where it was.
reproduce: .venv/run.stamp
	$(BIN)/python -m experiments.reproduce --preset=reproduce $(FLAGS)

# The same with the paper's statistics: 65,536 samples and trajectories (hours on a CPU).
statistics: .venv/run.stamp
	$(BIN)/python -m experiments.reproduce --preset=statistics $(FLAGS)

# The paper's marginal model, trained as in the paper: 10 PFlop a thousand steps, so accelerators.
paper: .venv/run.stamp
	$(BIN)/python -m experiments.reproduce --preset=paper $(FLAGS)

# The same model, smaller, trained on a CPU in an hour.
paper-small: .venv/run.stamp
	$(BIN)/python -m experiments.reproduce --preset=paper_small $(FLAGS)

test: check
	$(BIN)/python -m pytest -n 2 --dist loadscope $(FLAGS)

check: .venv/test.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python tests/snippets.py build/snippets README.md docs/your_own.md docs/clusters.md
	$(BIN)/pyright --pythonpath $(BIN)/python flowqcd build/snippets

# Statistical tests and large Jacobians, with programs optimised as users have them.
slow: .venv/test.stamp
	XLA_FLAGS="--xla_backend_optimization_level=3 $(XLA_FLAGS)" $(BIN)/python -m pytest -m slow $(FLAGS)

# More than a hundred deliberate mistakes, each of which must fail the tests named beside it: an hour or two. WORD chooses by
# file, and FROM goes on from a number: make mutants FROM=22.
WORD ?=
FROM ?= 1
mutants: .venv/test.stamp
	$(BIN)/python tests/mutants.py --from $(FROM) $(WORD)

# Damaged copies of every kind of file, kills of every binary, full disks: an hour. PART is mutations, kills or disk.
PART ?=
campaign: .venv/test.stamp
	PYTHONPATH=. $(BIN)/python tests/campaign.py $(PART)

# How often error bars cover the truth, by simulation: the table of docs/coverage.md, into runs/coverage/.
coverage: .venv/run.stamp
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m experiments.coverage $(FLAGS)

# Every sampler against exact answers, into runs/exactness/: FLAGS=--minutes=5 for less than half an hour.
exactness: .venv/run.stamp
	$(BIN)/python -m experiments.exactness $(FLAGS)

# A run under a SLURM on this machine, stopped and put back; needs root and Debian's slurm-wlm and munge.
cluster-test: .venv/test.stamp
	PYTHONPATH=. $(BIN)/python tests/cluster.py

# Every hot path by the compilers for an H100 and a TPU v5e, with neither there: an hour. PART is cuda or tpu, WORD a path.
compile-check: .venv/compile.stamp
	@status=0; for part in $(or $(PART),cuda tpu); do \
	  PYTHONPATH=.:tests .venv/compile/bin/python tests/compile_check.py $$part $(WORD) || status=1; done; exit $$status

# Every hot path on this machine's accelerator against numbers from a CPU, and its rates: four minutes. OUT is the folder.
OUT ?= runs/device_check
device-check: .venv/test.stamp
	PYTHONPATH=. $(BIN)/python tests/device_check.py $(OUT) $(FLAGS)

# Every hot kernel and end-to-end rate, optimised and with one device for one core, as users have them: a table, and
# runs/bench/<time>.json. With more devices than cores the heat bath takes twice its time.
bench: .venv/bench.stamp
	@mkdir -p runs/bench
	XLA_FLAGS="--xla_backend_optimization_level=3 --xla_force_host_platform_device_count=1 $(XLA_FLAGS)" \
	  $(BIN)/python -m pytest tests/benchmarks -o python_files='bench_*.py' -p no:cacheprovider --benchmark-quiet \
	  --benchmark-json=runs/bench/$$(date +%Y%m%d-%H%M%S).json $(FLAGS)

# Ratios of two runs: make bench-compare OLD=runs/bench/one.json [NEW=runs/bench/other.json], the latest by default.
NEW ?= $(lastword $(sort $(wildcard runs/bench/*.json)))
bench-compare: .venv/bench.stamp
	@test -f "$(OLD)" && test -f "$(NEW)" || { echo "error: OLD=file.json must name an earlier run, NEW= a later one" >&2; exit 1; }
	$(BIN)/pytest-benchmark compare $(abspath $(OLD)) $(abspath $(NEW)) --group-by=name --sort=name --columns=min,median,rounds

.venv/pyvenv.cfg:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found; set PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/run.stamp: .venv/pyvenv.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet -e .
	touch $@

.venv/test.stamp: .venv/pyvenv.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[test]'
	touch $@ .venv/run.stamp

# An environment of its own, for the plugins change what JAX does at its start. Compiling needs none of CUDA's libraries.
.venv/compile.stamp: .venv/test.stamp
	$(PYTHON) -m venv .venv/compile
	.venv/compile/bin/python -m pip install --quiet -e '.[test]' libtpu
	.venv/compile/bin/python -m pip install --quiet --no-deps \
	  $$($(BIN)/python -c 'import jax; print(*(f"jax-cuda12-{x}=={jax.__version__}" for x in ("plugin", "pjrt")))')
	touch $@

# The tests on the newest Python and JAX that are allowed; PYTHON_NEWEST says which Python.
PYTHON_NEWEST ?= python3.13
test-newest: .venv/newest.stamp
	XDG_CACHE_HOME=.cache/newest .venv/newest/bin/python -m pytest -n 2 --dist loadscope -p no:cacheprovider $(FLAGS)

.venv/newest.stamp: .venv/pyvenv.cfg pyproject.toml
	$(PYTHON_NEWEST) -m venv .venv/newest
	.venv/newest/bin/python -m pip install --quiet -e '.[test]'
	touch $@

.venv/bench.stamp: .venv/pyvenv.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[bench]'
	touch $@ .venv/run.stamp

clean:
	rm -rf .venv .cache build *.egg-info .pytest_cache .ruff_cache .hypothesis
