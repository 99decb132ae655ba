# The commands of the project. Everything runs from .venv, which the first command makes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two files at a time, in the order in which tests/conftest.py puts them.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: sweep test faults check lint types imports tree bench noise simulate simulate-program resample smoke docs clean

sweep: $(VENV)/installed  ## Run the sweep over components and print its table
	$(BIN)/specsweep run sweeps/components.yaml

test: $(VENV)/installed-dev  ## Run the tests but for the long ones, two files at a time
	$(PYTEST)

check: lint types imports tree  ## Run ruff, mypy --strict and the import rules; no stray files

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

imports: $(VENV)/installed-dev
	$(BIN)/lint-imports

tree:  ## Fail if a run of the tests, or anything else, left files that git neither knows nor ignores
	@left=$$(git ls-files --others --exclude-standard 2>/dev/null); test -z "$$left" || \
		{ echo "neither added nor ignored: $$left"; exit 1; }

# What is drawn at random is the same in every run, so that a run says something of the code alone; SEED=random looks further.
SEED ?= 0
faults: $(VENV)/installed-dev  ## Run what takes long: faults of every kind at full length, and the tests marked long
	SPECSWEEP_FAULTS=long $(PYTEST) --hypothesis-seed=$(SEED)

bench: $(VENV)/installed-bench  ## Measure speed, as ratios side by side
	$(BIN)/python -m pytest tests/benchmarks -o addopts= --import-mode=importlib --benchmark-only -s

noise: $(VENV)/installed  ## Measure how noisy short trials are and what a verdict costs: hours; ARGS="--seeds 4 --list .."
	$(BIN)/python -m tests.noise_bench $(ARGS)

simulate: $(VENV)/installed  ## Simulate sweeps and judge the statistics of the tables by them: minutes; ARGS="--sweeps 2000"
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.statistics_simulation $(ARGS)

simulate-program: $(VENV)/installed  ## The same through run, ledger and tables: minutes; ARGS="--sweeps 20"
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.statistics_simulation.program $(ARGS)

resample: $(VENV)/installed  ## Judge a study's verdicts by sweeps drawn from its seeds: ARGS="results/studies/components --seeds 4"
	$(BIN)/python -m tests.statistics_simulation.resampled $(ARGS)

# The sweeps of results/studies/claims, in the order of its claims; DATA=FOLDER adds those on photographs.
CLAIMS := components blocks layerscale high_norm scales recipes comparators probes
study: $(VENV)/installed  ## Run the study of the paper's claims: hours, and it goes on where it was ended; DATA=FOLDER
	set -e; for name in $(CLAIMS); do $(BIN)/specsweep run sweeps/claims/$$name.yaml; done
	test -z "$(DATA)" || { set -e; for name in cifar10 cifar10_learnt camvid; do \
		$(BIN)/specsweep run sweeps/claims/$$name.yaml --set data.root=$(DATA)/$${name%_learnt}; done; }

smoke: $(VENV)/installed  ## Run a sweep of sweeps/paper to its table on miniature data sets: ARGS="blocks modes .."
	$(BIN)/python -m tests.smoke $(ARGS)

docs: $(VENV)/installed-docs  ## Build the documentation as a site, docs/_build/html; a warning is an error
	$(BIN)/python -m tests.documentation

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

$(VENV)/installed-bench: $(VENV)/installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

clean:  ## Remove the environment and what tools left behind
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .import_linter_cache docs/_build
