# Each command sets up what it needs. `make help` lists the commands.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
TORCH := $(or $(TORCH),$(if $(filter-out help,$(MAKECMDGOALS)),$(shell scripts/torch-build.sh)))
BACKEND ?= process
export PYTHON TORCH BACKEND
export PIP_DISABLE_PIP_VERSION_CHECK := 1

LOCKS := docker/requirements
VENV := .venv/.stamp-$(TORCH)
VENV_AIRFLOW := .venv-airflow/.stamp
VENV_BENCH := .venv-bench/.stamp
AIRFLOW_PYTHON := .venv-airflow/bin/python

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

.PHONY: run-local
run-local: ## Run the whole chain here: SOURCE SIZE EPOCHS NETWORK PROCESSES RUN_ID RUNTIME=docker|process
	@scripts/run-local.sh run

.PHONY: predict
predict: ## Write masks for a folder of films: FILMS=./mine OUT=artifacts/mine MODEL=starter|last|PATH|s3://…
	@scripts/run-local.sh masks

.PHONY: s3
s3: $(VENV) ## Serve S3 on 127.0.0.1 from artifacts/.s3, until Ctrl-C
	@exec .venv/bin/python -m jobs s3

.PHONY: test
test: $(VENV) ## Run the fast tests; they need neither root nor Docker nor Airflow
	.venv/bin/python -m pytest -m "not slow and not engine and not airflow"

.PHONY: test-all
test-all: test $(VENV_AIRFLOW) image ## Run all tests; those of containers and Airflow must not skip (first: make engine BROWSER=1)
	.venv/bin/python -m pytest -m "slow and not engine and not airflow"
	LUNG_FORBID_SKIPS=1 .venv/bin/python -m pytest -m "engine and not airflow"
	LUNG_FORBID_SKIPS=1 PATH="$$PATH:$$PWD/.venv/bin" \
	  $(AIRFLOW_PYTHON) -m pytest -m airflow $$(grep -lr mark.airflow tests --include='test_*.py')

.PHONY: starter
starter: $(VENV) ## Build the starter model of jobs/starter again, from its archives: FILMS=folder
	@.venv/bin/python -m scripts.starter "$(FILMS)"

.PHONY: bench-train
bench-train: $(VENV) $(if $(FOLDS),,$(VENV_BENCH)) ## Compare the training with nnU-Net and MONAI: SOURCE SIZE BUDGET SEEDS; FOLDS=5: ours only, by patient
	@.venv/bin/python -m tests.bench.train

.PHONY: bench
bench: $(VENV) ## Measure the data path as ratios within one run, into artifacts/bench.json: ROUNDS
	@OMP_WAIT_POLICY=PASSIVE .venv/bin/python -m tests.bench

.PHONY: bench-gpu
bench-gpu: export STARTED := $(shell date +%s)
bench-gpu: $(VENV) ## Measure training at 512 pixels and predict on this machine's GPUs, in ten minutes
	@.venv/bin/python -m tests.bench.gpu

.PHONY: kaggle-test
kaggle-test: $(VENV) ## Copy a small public set from the real Kaggle with your token, in two minutes
	@.venv/bin/python -m tests.sources.kaggle_site

.PHONY: cases
cases: $(VENV) ## Try a folder of odd inputs and print expected against got: CASES=folder
	@.venv/bin/python -m tests.cases $(CASES)

.PHONY: lint
lint: $(VENV) $(VENV_AIRFLOW) ## Check style, types, imports and shell scripts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy jobs tests scripts/starter
	.venv/bin/mypy --python-executable $(AIRFLOW_PYTHON) --exclude '^scripts/starter/' dags docker scripts
	.venv/bin/lint-imports --no-cache --no-logo
	@if [ -x .venv/bin/shellcheck ]; then .venv/bin/shellcheck docker/*.sh scripts/*.sh .ci/run; \
	else echo "shellcheck has no wheel for this platform: the scripts are not checked"; fi

.PHONY: airflow
airflow: $(VENV) $(VENV_AIRFLOW) ## Serve Airflow on this machine, until Ctrl-C: PORT RUNTIME=docker|process
	@runtime=$$(scripts/runtime.sh); \
	if [ $$runtime = docker ]; then docker/image.sh local >/dev/null; fi; \
	exec $(AIRFLOW_PYTHON) -m scripts.airflow.serve_airflow --home artifacts/airflow-$$runtime \
	  --backend $$runtime $(if $(PORT),--port $(PORT))

.PHONY: dag-run
dag-run: $(VENV) $(VENV_AIRFLOW) ## Trigger the DAG and follow it to its end: SOURCE SIZE EPOCHS NETWORK GPUS; RUN_ID: only follow that run
	@$(AIRFLOW_PYTHON) -m scripts.airflow.dag_run

.PHONY: dag-e2e
dag-e2e: $(VENV) $(VENV_AIRFLOW) image ## Run the DAG twice under a scheduler, its jobs in containers: SOURCE SIZE EPOCHS NETWORK
	@$(AIRFLOW_PYTHON) -m scripts.airflow.dag_e2e

.PHONY: dag-test
dag-test: $(VENV) $(VENV_AIRFLOW) $(if $(filter docker,$(BACKEND)),image) ## Run the DAG in one process: SOURCE SIZE EPOCHS NETWORK BACKEND=process|docker
	@$(AIRFLOW_PYTHON) -m scripts.airflow.dag_test

.PHONY: engine
engine: ## Install and start Docker and Compose (root, Debian or Ubuntu); BROWSER=1 adds Chromium
	@docker/engine.sh

.PHONY: up
up: ## Serve Airflow, PostgreSQL and S3 in containers on 127.0.0.1; settings: docker/.env
	@docker/compose.sh up

.PHONY: down
down: ## Stop them; VOLUMES=1 also deletes the data
	@docker/compose.sh down

.PHONY: image
image: ## Build the container images lung-jobs:<version> and lung-jobs:local; TORCH=cuda|cpu: for another machine
	@docker/image.sh jobs
	@docker/image.sh local

.PHONY: images
images: $(VENV) $(VENV_AIRFLOW) ## Regenerate the READMEs' pictures from runs on phantoms (first: make engine BROWSER=1)
	@RUN_ID=readme scripts/run-local.sh run
	cp artifacts/readme/worst.png images/masks.png
	LUNG_IMAGES=$$PWD/images $(AIRFLOW_PYTHON) -m pytest tests/airflow/test_web.py \
	  tests/airflow/test_masks_web.py

.PHONY: locks
locks: | python ## Recompile the lock files after a change of an .in file
	@scripts/locks.sh

.PHONY: clean
clean: ## Remove virtual environments, downloaded wheels and caches; artifacts/ and images stay
	rm -rf .venv .venv-airflow .venv-bench build .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './artifacts/*' -prune -exec rm -rf {} +
	@echo "artifacts/ and the images of 'docker image ls lung-jobs' are kept"

.PHONY: python
python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "$(PYTHON) is missing or older than Python 3.11: name a newer one, as in" \
	    "'make PYTHON=python3.12 $(MAKECMDGOALS)'" >&2; exit 2; }

.PHONY: venv
venv: $(VENV) ## Set up .venv, for .venv/bin/python -m jobs

$(VENV): $(addprefix $(LOCKS)/,jobs.lock local.lock dev.lock torch.in) | python
	@scripts/venv.sh $@ $^

$(VENV_AIRFLOW): $(addprefix $(LOCKS)/,airflow.lock airflow-dev.lock) | python
	@scripts/venv.sh $@ $^

# PIP_NO_DEPS: the lock leaves torchvision out, and pip must not look for it.
$(VENV_BENCH): $(addprefix $(LOCKS)/,bench-peers.lock torch.in) | python
	@TORCH=cpu PIP_NO_DEPS=1 scripts/venv.sh $@ $^
