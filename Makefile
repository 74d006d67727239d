# `make` says what there is to make. Override: PYTHON=/path/to/python3.12  VENV=/scratch/venv
# DETECTRON2=/path/to/checkout: a checkout of its repository, for the tests, before the installed one
VENV := .venv
env := $(patsubst %/,%,$(VENV))
stamp := $(env)/.setup-complete
unfinished := $(env).unfinished
bin := $(env)/bin

# The first Python 3.11-3.13 that really runs: under pyenv, python3.12 may be a stub that fails.
ifndef PYTHON
PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1 \
	&& { echo $$p; break; }; done)
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo proof test slurm browser test-slurm slurm-trial lint format clean

help: ## say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' \
		$(firstword $(MAKEFILE_LIST))

setup: $(stamp) ## install everything into .venv (about 5 GB)

# Once the folder exists and until everything is in it, $(unfinished) marks it: what an interrupted
# set-up left there cannot be trusted, so it is emptied. A complete one is brought up to date.
$(stamp): pyproject.toml constraints.txt $(wildcard tools/*detectron2*.py)
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 was found: install one," \
		"or name it with make PYTHON=/path/to/python" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
		echo "error: $(PYTHON) is not a Python 3.11, 3.12 or 3.13: name one with" \
		"make PYTHON=/path/to/python" >&2; exit 2; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) cannot make" \
		"virtual environments: install its venv module (on Debian and Ubuntu:" \
		"apt install python3-venv)" >&2; exit 2; }
	@set -e; start=$$(date +%s); clear=; quiet=; \
	echo "setting up $(env) with $(PYTHON): about 5 GB, a few minutes"; \
	if test -e "$(unfinished)"; then clear=--clear; fi; \
	mkdir -p "$(env)"; touch "$(unfinished)"; rm -f "$(stamp)"; \
	if test -n "$$clear" || ! test -x "$(bin)/python"; then \
		"$(PYTHON)" -m venv $$clear "$(env)"; fi; \
	test -t 1 || quiet=--quiet; \
	"$(bin)/python" -m pip install --disable-pip-version-check $$quiet \
		--constraint constraints.txt --editable '.[dev]'; \
	"$(bin)/python" tools/install_detectron2.py; \
	touch "$(stamp)"; rm -f "$(unfinished)"; \
	echo "set-up took $$(( $$(date +%s) - start )) s"

demo: setup ## pre-train on drawn images, and show what that is worth (10 minutes)
	@"$(bin)/python" launch/demo.py

proof: setup ## the same over seeds and methods, with intervals (90 minutes)
	@"$(bin)/python" launch/proof.py

test: lint ## check style and types, then run the tests
	@test -z "$(DETECTRON2)" || test -f "$(DETECTRON2)/detectron2/__init__.py" || { \
		echo "error: DETECTRON2=$(DETECTRON2) is no checkout of Detectron2's repository" >&2; exit 2; }
	$(if $(DETECTRON2),PYTHONPATH="$(abspath $(DETECTRON2))") "$(bin)/python" -m pytest

slurm: ## install Slurm's packages for the tests on it (root, apt)
	@"$(or $(PYTHON),python3)" tests/apt.py slurm

browser: ## install Chromium for the test of the report in it (root, apt)
	@"$(or $(PYTHON),python3)" tests/apt.py chromium

test-slurm: setup slurm ## install Slurm (root, apt) and run the tests on it
	LEWEL_REQUIRE_SLURM=1 "$(bin)/python" -m pytest tests/slurm

slurm-trial: setup slurm ## try faults on a private Slurm: OUTPUT=FILE.csv EPOCHS=5 ITERATIONS=90
	"$(bin)/python" -m tests.slurm.trial $(if $(OUTPUT),--output "$(OUTPUT)") \
		$(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(ITERATIONS),--iterations $(ITERATIONS))

lint: setup ## check style and types
	"$(bin)/ruff" check .
	"$(bin)/ruff" format --check .
	"$(bin)/mypy"

format: setup ## mend style where a tool can
	"$(bin)/ruff" check --fix .
	"$(bin)/ruff" format .

clean: ## remove the environment and caches, never runs/, results/ or data/
	rm -rf .venv .venv.unfinished build .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
