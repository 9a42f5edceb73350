# Two commands on a fresh machine: `make demo` sets up and runs the main job, `make test` sets up and tests.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export GX_ANALYTICS_ENABLED := False
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help setup demo up down test test-all test-chaos test-frameworks check format lock repro bench-orchestration bench-aggregation bench-simulation bench-asynchrony clean

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 22

setup: ## Find Python 3.11, make .venv, install exactly requirements.lock (a second run does nothing)
	@bash scripts/setup.sh

demo: setup ## The main job: data, checks, rounds under Airflow, MLflow, promotion, signed edge, prediction
	@$(PY) examples/demo.py

up: setup ## Start MLflow, Airflow and an edge device in the background
	@fedcore up --folder demo

down: ## Stop everything that demo or up started, orphans included
	@test -x $(PY) && fedcore down --folder demo || echo "nothing is set up here; run: make setup"

repro: setup ## The whole result by DVC alone, without Airflow or a server
	@dvc repro

test: setup ## Everything that runs in minutes, with coverage, a worker a core
	@$(PY) -m pytest -n auto --maxprocesses 8 --dist loadfile --cov --cov-report=term:skip-covered --cov-fail-under=95

test-all: setup ## Slow tests and those with real services too
	@$(PY) -m pytest -m "not gpu"

test-frameworks: setup ## The adapters' laws with TensorFlow too, in an environment of its own (1.4 GB)
	@bash scripts/frameworks.sh

test-chaos: setup ## Only the tests that kill processes
	@$(PY) -m pytest -m "chaos"

check: setup ## Format, lint, types, layers
	@ruff format --check .
	@ruff check .
	@mypy
	@lint-imports --no-cache
	@pylint fedcore pipelines dags benchmarks/*.py examples/*.py --fail-under=9 --score=y

format: setup ## Put the code in its form
	@ruff format .
	@ruff check --fix .

lock: setup ## Write requirements.lock from pyproject.toml, versions only
	@bash scripts/lock.sh

bench-orchestration: setup ## Airflow's overhead a round, beside empty tasks
	@$(PY) benchmarks/orchestration.py

bench-aggregation: setup ## Aggregation beside Flower, ByzFL and the machine's own limits (half an hour)
	@$(PY) benchmarks/aggregation.py

bench-simulation: setup ## Seconds a round beside pfl-research, Flower and a bare PyTorch loop (under seven minutes)
	@$(PY) benchmarks/simulation.py --rounds 8 --repeat 1

bench-asynchrony: setup ## Rounds beside FedBuff in virtual seconds, and what staleness costs (needs FEDCORE_DATA)
	@$(PY) benchmarks/asynchrony.py

clean: ## Remove everything that was made here except the environment
	@rm -rf runs demo data models reports/docs reports/rounds .pytest_cache .mypy_cache .ruff_cache .coverage*
