# Every target works in $(VENV), made on first use from constraints.txt. `make help` lists the targets.
VENV    ?= .venv
PYTHON  ?= python3.11
CONFIG  ?= pipelines/configs/quickstart.yaml
OUTPUT  ?= runs/quickstart
IMAGE   ?=
SET     ?=
PORT    ?= 5000
TRACKING ?= sqlite:///mlflow.db
STACK   ?= .stack
TARGETS ?= cpu mlflow
BASE_IMAGE ?= python:3.11-slim-bookworm
DOCKER  ?= docker

BIN   := $(VENV)/bin
READY := $(VENV)/.ready
STACK_READY := $(VENV)/.ready-stack
SETS  := $(foreach pair,$(SET),--set $(pair))

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-integration base images stack stack-down lint format compile golden dashboard clean

help: ## list the targets and their variables
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'
	@echo "  variables    VENV=$(VENV) PYTHON=$(PYTHON) CONFIG=$(CONFIG) OUTPUT=$(OUTPUT) SET='key=value ...' IMAGE= PORT=$(PORT)"
	@echo "               STACK=$(STACK) TARGETS='$(TARGETS)' BASE_IMAGE=$(BASE_IMAGE) DOCKER=$(DOCKER)"

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not here; name a Python 3.11 or later with PYTHON=..."; exit 2; }
	@echo "making $(VENV) (a few minutes, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(STACK_READY): $(READY)
	@echo "adding the stack's packages to $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[stack]'
	@touch $@

quickstart: $(READY) ## run the main job on the embedded data; the run is left in OUTPUT
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pipelines.run local --config "$(CONFIG)" $(SETS) --output "$(OUTPUT)"

test: $(READY) ## the fast tests: no network but the package registry, no GPU, no docker
	@OMP_NUM_THREADS=1 PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -n 2 --dist loadfile -m "not integration" $(ARGS)

test-integration: $(STACK_READY) ## the tests with real servers and containers; what a machine lacks is skipped with the reason
	@OMP_NUM_THREADS=1 DOCKER=$(DOCKER) PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -m integration -rs tests/integration $(ARGS)

base: ## make adabert-base:bookworm from Debian's packages, for machines without a registry: BASE_IMAGE=adabert-base:bookworm
	@DOCKER=$(DOCKER) docker/make_base.sh

images: $(READY) ## build the images TARGETS (cpu, cuda, mlflow) of the last commit on BASE_IMAGE
	@DOCKER=$(DOCKER) BASE_IMAGE=$(BASE_IMAGE) PYTHON=$(BIN)/python docker/build.sh $(TARGETS)

stack: $(STACK_READY) ## bring up SeaweedFS (S3), PostgreSQL and MLflow on loopback; state, logs and env file in STACK
	@$(BIN)/python -m pipelines.stack up --folder $(STACK)

stack-down: $(STACK_READY) ## end what make stack has started; its data stays
	@$(BIN)/python -m pipelines.stack down --folder $(STACK)

lint: $(READY) ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy adabert_core components pipelines

format: $(READY) ## let ruff sort and format
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

compile: $(READY) ## write the DAG as one IR YAML, build/adabert_pipeline.yaml, with CONFIG's values as defaults
	@$(BIN)/python -m pipelines.run compile --config $(CONFIG) $(SETS) $(if $(IMAGE),--image $(IMAGE))

golden: $(READY) ## rewrite the committed copy of the compiled DAG after a change that is meant
	@$(BIN)/python -m pipelines.run compile --image adabert-python:golden --output pipelines/adabert_pipeline.golden.yaml

dashboard: $(READY) ## MLflow on http://127.0.0.1:PORT over the runs of this checkout
	@$(BIN)/mlflow server --backend-store-uri $(TRACKING) --host 127.0.0.1 --port $(PORT)

clean: ## remove build outputs; runs and the environment stay
	@rm -rf build .pytest_cache .mypy_cache .ruff_cache
