# Run contract. Every target installs what it needs into .venv first; that is a no-op when up to date.
PYTHON ?= python3
BIN = .venv/bin
# Test processes; each traces and compiles most of what it runs, so more pay off only with more cores.
WORKERS ?= 2
PYTEST_FLAGS ?=
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help setup pretrain critic online goal data behaviours figures test test-slow test-promises test-optimised chaos bench gpu lint format clean

help: ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

# What is given to make reaches the programs as it was given, with quotes, dollar signs and spaces:
# $(call quote,TEXT) makes one word of the shell; $(value NAME) is not expanded.
quote = '$(subst ','\'',$(1))'
comma = ,
python = $(call quote,$(value PYTHON))

setup: .venv/.installed ## create .venv and install this package with its tools (PYTHON=python3.12)

.venv/.installed: setup.cfg pyproject.toml
	@test -x $(BIN)/python || $(python) -c \
	  'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
	  echo "error: mtm_jax needs Python 3.11, 3.12 or 3.13 (mujoco 3.4 has no wheels for later" \
	    "ones), and" $(python) "is $$($(python) --version 2>&1);" \
	    "write make setup PYTHON=python3.12" >&2; exit 1; }
	@echo "installing into .venv; this takes a minute or two"
	@test -x $(BIN)/python || $(python) -m venv .venv
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -e '.[dev]'
	@$(BIN)/python -c 'import importlib.util as u; u.find_spec("dm_control") or print("left out:" \
	  " ExORL walker (extra walker), whose labmaze has no wheels for this Python; 3.12 has them")'
	@touch $@

# --config.KEY=VALUE where the variable is set: $(call override,KEY,NAME)
override = $(if $(value $(2)), --config.$(1)=$(call quote,$(value $(2))))
# The configuration of ENV and PRESET: $(call named,FILE)
named = --config=$(call quote,configs/$(1).py:$(value ENV)$(if $(value PRESET),$(comma)preset=$(value PRESET)))
need_env = @test -n $(call quote,$(value ENV)) || { \
  echo "error: make $@ needs ENV, e.g. ENV=$(1)" >&2; exit 2; }
# Exported, they would be expanded.
unexport ENV TASK RUN SOURCE PRESET SEED SEEDS STEPS OUT RUNS SECTIONS FIGURE PYTHON

# What pretraining and a critic have in common: $(call run_flags,FILE,KEY of STEPS,KEY of OUT)
run_flags = $(call named,$(1))$(call override,source,SOURCE)$(call override,seed,SEED)$(\
  )$(call override,seeds,SEEDS)$(call override,$(2),STEPS)$(call override,$(3),OUT)

pretrain: .venv/.installed ## pretrain on ENV=hopper-medium [SOURCE= PRESET= SEED= SEEDS= STEPS= OUT=]
	$(call need_env,hopper-medium)
	$(BIN)/python -m experiments.pretrain $(call run_flags,pretrain,steps,out)

critic: .venv/.installed ## train a critic for the run of make pretrain [ENV= SOURCE= PRESET= SEED= SEEDS= STEPS= OUT=]
	$(call need_env,hopper-medium)
	$(BIN)/python -m experiments.critic $(call run_flags,critic,critic.steps,run)

online: .venv/.installed ## finetune that run online [ENV= SOURCE= PRESET= SEED= STEPS= OUT=]
	$(call need_env,hopper-medium)
	$(BIN)/python -m experiments.m3pc_online $(call named,m3pc_online)$(call override,source,SOURCE)$(\
	  )$(call override,seed,SEED)$(call override,steps,STEPS)$(call override,out,OUT)

goal: .venv/.installed ## reach goals with the run of role=goals, TASK=hopper-wiggle [PRESET= SEED= RUN=]
	@test -n $(call quote,$(value TASK)) || { \
	  echo "error: make $@ needs TASK, e.g. TASK=hopper-wiggle" >&2; exit 2; }
	$(BIN)/python -m experiments.m3pc_goal \
	  --config=$(call quote,configs/m3pc_goal.py:$(value TASK)$(if $(value PRESET),$(comma)preset=$(value PRESET)))$(\
	  )$(call override,seed,SEED)$(call override,run,RUN)

data: .venv/.installed ## list the data sets and where they are
	$(BIN)/python -m experiments.data list

behaviours: .venv/.installed ## train the behaviour policies of the built-in data, ENV=hopper
	$(call need_env,hopper)
	$(BIN)/python -m experiments.behaviours $(call named,behaviours)
	$(BIN)/python -m experiments.ladder $(call named,ladder) \
	  --config.out=$(call quote,mtm_jax/data/builtin/actors/$(value ENV))

figures: .venv/.installed ## draw the figures of the README
	$(BIN)/python -m experiments.mask_figure

test: .venv/.installed ## run the tests, without the slow ones [WORKERS=2 PYTEST_FLAGS=]
	$(PYTEST) -m 'not slow' $(PYTEST_FLAGS)

test-slow: .venv/.installed ## run the slow tests
	$(PYTEST) -m slow $(PYTEST_FLAGS)

test-promises: .venv/.installed ## run the slow tests of what no fast one holds: devices, interruption, damage
	$(PYTEST) -m slow tests/experiments/test_interruption.py tests/training/test_sharding.py \
	  tests/io/test_corruption.py tests/experiments/test_m3pc_online.py $(PYTEST_FLAGS)

# XLA optimises only here: the other tests compile more than they compute.
test-optimised: .venv/.installed ## run the numerical tests fully optimised
	XLA_FLAGS= $(PYTEST) tests/models/test_golden.py tests/models/test_visibility.py tests/models/test_networks.py \
	  $(PYTEST_FLAGS)

chaos: .venv/.installed ## kill programs at random moments, continue and compare them [RUNS=50]
	PYTHONPATH=. $(BIN)/python tests/chaos.py --runs=$(call quote,$(or $(value RUNS),50))

bench: .venv/.installed ## time everything on this machine, a quarter of an hour [SECTIONS= FIGURE=]
	$(BIN)/python -m experiments.bench$(call override,sections,SECTIONS)$(call override,figure,FIGURE)

gpu: .venv/.installed ## time and try everything on one accelerator, in eight minutes [OUT=]
	$(BIN)/python -m experiments.gpu$(call override,out,OUT)

lint: .venv/.installed ## check style and layout of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.installed ## bring the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv and caches; runs/ stays
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
