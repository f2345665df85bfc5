# Run contract. Every target installs what it needs into .venv first; that is a no-op when up to date.
PYTHON ?= python3
BIN = .venv/bin
# Test processes; each compiles for itself, so more than two pay off only with many cores.
WORKERS ?= 2
PYTEST_FLAGS ?=
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: help setup pretrain critic data behaviours figures test test-slow test-optimised chaos bench lint format clean

help: ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

setup: .venv/.installed ## create .venv and install this package with its tools (PYTHON=python3.12)

.venv/.installed: setup.cfg pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: mtm_jax needs Python 3.11 or later, and $(PYTHON) is" \
	    "$$($(PYTHON) --version 2>&1); write make setup PYTHON=python3.12" >&2; exit 1; }
	@echo "installing into .venv; this takes a minute or two"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

# Pass --config.KEY=VALUE for a variable only where it is set: $(call override,KEY,VALUE)
override = $(if $(2),--config.$(1)='$(2)')

pretrain: .venv/.installed ## pretrain on ENV=hopper-medium [SOURCE= PRESET= SEED= SEEDS= STEPS= OUT=]
	@test -n "$(ENV)" || { echo "error: make pretrain needs ENV, e.g. ENV=hopper-medium" >&2; exit 2; }
	$(BIN)/python -m experiments.pretrain $(strip \
	  --config='configs/pretrain.py:$(ENV)$(if $(PRESET),$(comma)preset=$(PRESET))' \
	  $(call override,source,$(SOURCE)) $(call override,seed,$(SEED)) $(call override,seeds,$(SEEDS)) \
	  $(call override,steps,$(STEPS)) $(call override,out,$(OUT)))
comma = ,

critic: .venv/.installed ## train a critic for the run of make pretrain [ENV= SOURCE= PRESET= SEED= SEEDS= STEPS= OUT=]
	@test -n "$(ENV)" || { echo "error: make critic needs ENV, e.g. ENV=hopper-medium" >&2; exit 2; }
	$(BIN)/python -m experiments.critic $(strip \
	  --config='configs/critic.py:$(ENV)$(if $(PRESET),$(comma)preset=$(PRESET))' \
	  $(call override,source,$(SOURCE)) $(call override,seed,$(SEED)) $(call override,seeds,$(SEEDS)) \
	  $(call override,critic.steps,$(STEPS)) $(call override,run,$(OUT)))

data: .venv/.installed ## list the data sets and where they are
	$(BIN)/python -m experiments.data list

behaviours: .venv/.installed ## train the behaviour policies of the built-in data, ENV=hopper
	@test -n "$(ENV)" || { echo "error: make behaviours needs ENV, e.g. ENV=hopper" >&2; exit 2; }
	$(BIN)/python -m experiments.behaviours --config='configs/behaviours.py:$(ENV)'
	$(BIN)/python -m experiments.ladder --config='configs/ladder.py:$(ENV)' \
	  --config.out=mtm_jax/data/builtin/actors/$(ENV)

figures: .venv/.installed ## draw the figures of the README
	$(BIN)/python -m experiments.mask_figure

test: .venv/.installed ## run the tests, without the slow ones [WORKERS=2 PYTEST_FLAGS=]
	$(PYTEST) -m 'not slow' $(PYTEST_FLAGS)

test-slow: .venv/.installed ## run the slow tests
	$(PYTEST) -m slow $(PYTEST_FLAGS)

# XLA optimises only here: the other tests compile more than they compute.
test-optimised: .venv/.installed ## run the numerical tests fully optimised
	XLA_FLAGS= $(PYTEST) tests/models/test_golden.py tests/models/test_visibility.py tests/models/test_networks.py \
	  $(PYTEST_FLAGS)

chaos: .venv/.installed ## kill programs at random moments, continue and compare them [RUNS=50]
	PYTHONPATH=. $(BIN)/python tests/chaos.py --runs=$(or $(RUNS),50)

bench: .venv/.installed ## time everything on this machine, a quarter of an hour [SECTIONS= FIGURE=]
	$(BIN)/python -m experiments.bench $(strip $(call override,sections,$(SECTIONS)) \
	  $(call override,figure,$(FIGURE)))

lint: .venv/.installed ## check style and layout of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.installed ## bring the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv and caches; runs/ stays
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
