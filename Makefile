# Every target works in $(VENV), made on first use from constraints.txt. `make help` lists the targets.
VENV    ?= .venv
PYTHON  ?= python3.11
CONFIG  ?= pipelines/configs/quickstart.yaml
OUTPUT  ?= runs/quickstart
IMAGE   ?=
SET     ?=
PORT    ?= 5000
TRACKING ?= sqlite:///mlflow.db
ENDPOINT ?=
NAMESPACE ?=
NAME    ?= adabert
CRON    ?= 0 0 3 * * *
STACK   ?= .stack
TARGETS ?= cpu mlflow
BASE_IMAGE ?= python:3.11-slim-bookworm
DOCKER  ?= docker

BIN   := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS_READY := $(VENV)/.ready-extras
SETS  := $(foreach pair,$(SET),--set $(pair))
SERVER := $(if $(ENDPOINT),--endpoint "$(ENDPOINT)") $(if $(NAMESPACE),--namespace "$(NAMESPACE)")
JOB   := --config "$(CONFIG)" $(SETS) $(if $(IMAGE),--image "$(IMAGE)")

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-integration lint format compile submit schedule golden base images stack stack-down manifests \
	dashboard docs clean

help: ## list the targets and their variables
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'
	@echo "  variables    VENV=$(VENV) PYTHON=$(PYTHON) CONFIG=$(CONFIG) OUTPUT=$(OUTPUT) SET='key=value ...' IMAGE= PORT=$(PORT)"
	@echo "               ENDPOINT=$(ENDPOINT) NAMESPACE=$(NAMESPACE) NAME=$(NAME) CRON='$(CRON)' ARGS='more options of the command'"
	@echo "               STACK=$(STACK) TARGETS='$(TARGETS)' BASE_IMAGE=$(BASE_IMAGE) DOCKER=$(DOCKER)"

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not here; name a Python 3.11 or later with PYTHON=..."; exit 2; }
	@echo "making $(VENV) (a few minutes, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(EXTRAS_READY): $(READY)
	@echo "adding servers and cluster tools to $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,stack,cluster]'
	@touch $@

quickstart: $(READY) ## run the main job on the embedded data; the run is left in OUTPUT
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pipelines.run local --config "$(CONFIG)" $(SETS) --output "$(OUTPUT)"

test: $(READY) ## the fast tests: no network but the package registry, no GPU, no docker
	@OMP_NUM_THREADS=1 PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not integration" --ignore tests/integration $(ARGS)

test-integration: $(EXTRAS_READY) ## the tests with real servers and containers, and long ones; what a machine lacks is skipped with the reason
	@OMP_NUM_THREADS=1 DOCKER=$(DOCKER) PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m integration -rs $(ARGS)

base: ## make adabert-base:bookworm from Debian's packages, for machines without a registry: BASE_IMAGE=adabert-base:bookworm
	@DOCKER=$(DOCKER) docker/make_base.sh

images: $(READY) ## build the images TARGETS (cpu, cuda, mlflow) of the last commit on BASE_IMAGE
	@DOCKER=$(DOCKER) BASE_IMAGE=$(BASE_IMAGE) PYTHON=$(BIN)/python docker/build.sh $(TARGETS)

stack: $(EXTRAS_READY) ## bring up SeaweedFS (S3), PostgreSQL and MLflow on loopback; state, logs and env file in STACK
	@$(BIN)/python -m pipelines.stack up --folder $(STACK)

stack-down: $(EXTRAS_READY) ## end what make stack has started; its data stays
	@$(BIN)/python -m pipelines.stack down --folder $(STACK)

lint: $(READY) ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy adabert_core components pipelines

format: $(READY) ## let ruff sort and format
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

compile: $(READY) ## write the DAG as one IR YAML, build/adabert_pipeline.yaml, with CONFIG's values as defaults
	@$(BIN)/python -m pipelines.run compile --config $(CONFIG) $(SETS) $(if $(IMAGE),--image $(IMAGE)) $(ARGS)

submit: $(READY) ## run the DAG once on Kubeflow Pipelines at ENDPOINT; ARGS=--wait follows it
	@$(BIN)/python -m pipelines.run submit $(SERVER) $(JOB) $(ARGS)

schedule: $(READY) ## run it there whenever CRON fires, as NAME; ARGS=--list, --pause, --resume or --delete
	@$(BIN)/python -m pipelines.run schedule $(SERVER) $(JOB) --name "$(NAME)" \
	  $(if $(filter --list --pause --resume --delete,$(ARGS)),,--cron "$(CRON)") $(ARGS)

golden: $(READY) ## rewrite the committed copy of the compiled DAG after a change that is meant
	@$(BIN)/python -m pipelines.run compile --image adabert-python:golden --output pipelines/adabert_pipeline.golden.yaml

manifests: $(EXTRAS_READY) ## render every Kubernetes overlay and option into build/manifests and check it against the API schemas
	@$(BIN)/python manifests/render.py

dashboard: $(READY) ## MLflow on http://127.0.0.1:PORT over the runs of this checkout
	@MLFLOW_DISABLE_TELEMETRY=true $(BIN)/mlflow server --backend-store-uri $(TRACKING) --host 127.0.0.1 --port $(PORT)

docs: $(READY) ## build the site into build/site; index.html there needs no server
	@NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --quiet --strict

clean: ## remove build outputs; runs and the environment stay
	@rm -rf build .pytest_cache .mypy_cache .ruff_cache
