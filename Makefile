# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
SHELL := bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
# pip's list of local wheel folders, if this machine has one: uv does not read it by itself. It lets a
# machine without a GPU use a CPU build of torch.
FIND_LINKS = $(or $(PIP_FIND_LINKS),$(shell python3 -m pip config get global.find-links 2>/dev/null))
UV = $(if $(FIND_LINKS),UV_FIND_LINKS="$(FIND_LINKS)") $(BIN)/uv

# Without compiled modules on the disk every step of a pipeline would compile its imports again, for seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo images test test-services test-containers test-ray test-slow lint manifests lock docs-check benchmarks

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed ## make the environment in .venv

$(VENV)/.installed: requirements.lock pyproject.toml
	@test -x $(BIN)/python || python3 -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(UV) pip install --quiet --python $(BIN)/python -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

demo: install ## the main job: pull Fashion-MNIST, then validate, train, calibrate, evaluate, gate and promote
	$(BIN)/assay data pull
	$(BIN)/assay run classification

images: install ## the container image of every step; TARGET=gpu for torch with CUDA
	infra/images/build.sh $(or $(TARGET),cpu)

test: install ## the default suite
	$(BIN)/python -m pytest -m "not slow and not gpu and not services and not containers and not ray" \
		-n auto --maxprocesses 4 --dist loadfile

test-services: install ## against S3, PostgreSQL and MLflow servers, which it starts and stops
	$(BIN)/python -m pytest -m "services and not slow" tests

test-containers: install images ## every step in a container; needs docker
	$(BIN)/python -m pytest -m "containers and not slow" tests

test-ray: install ## training on Ray workers, lost workers and nodes
	$(BIN)/python -m pytest -m "ray and not slow" tests

test-slow: install ## what takes longer: the full-size checks
	$(BIN)/python -m pytest -m "slow and not gpu"

lint: install ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

manifests: install ## render the Kubernetes overlays and check them; our own image is pinned when there is a registry
	@for overlay in dev production; do set -e -o pipefail; \
		rendered=$$($(BIN)/kubectl kustomize infra/kubernetes/overlays/$$overlay); \
		$(BIN)/kubernetes-validate --strict --quiet - <<<"$$rendered"; \
		echo -n "$$overlay: "; $(BIN)/python infra/kubernetes/policy.py --unpinned registry.invalid/assay - <<<"$$rendered"; \
	done

lock: ## resolve requirements.lock again from pyproject.toml
	$(UV) pip compile pyproject.toml --extra dev --python-version 3.11 --no-header --no-annotate --quiet \
		| sed -E 's/^torch==([0-9.]+)\+.*/torch==\1/' > requirements.lock.new
	mv requirements.lock.new requirements.lock

docs-check: install ## every command and path that the documents name exists
	$(BIN)/python -m pytest tests/test_documents.py

benchmarks: install ## paired timings against the named peers
	$(BIN)/python -m pytest benchmarks -s
