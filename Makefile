# Every target sets up .venv by itself; the only need is Python 3.11 or newer.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
FLAGS ?=

.PHONY: reproduce statistics paper paper-small test check slow clean

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

# Statistical tests and large Jacobians.
slow: .venv/test.stamp
	$(BIN)/python -m pytest -m slow $(FLAGS)

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

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .hypothesis
