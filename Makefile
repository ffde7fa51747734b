# make demo | test | test-all | up | check | clean
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
BIN := .venv/bin
export DS_BUILD_OPS := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-all up check clean

help: ## Show what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/installed ## Build the chain `reviews`, ask it, print its scorecard (up to 10 minutes on two cores)
	@echo "The demo downloads one archive of Chinese reviews (38 MB, MIT) into your cache, once."
	$(BIN)/llm-assets run reviews --preset demo
	$(BIN)/llm-assets ask reviews "我非常喜欢这个产品" "房间很脏，服务员态度极差，再也不会来了" "这本书内容空洞，浪费时间"
	$(BIN)/llm-assets scorecard reviews
	@echo "Next: 'make up' and open http://127.0.0.1:3000 (assets), :5000 (MLflow), :8000 (try the model)."

test: .venv/tested ## Pass the tests (up to 20 minutes on two cores)
	$(BIN)/python -m pytest -q -m "not slow"

test-all: .venv/tested ## Pass every test, the slow ones too (up to 45 minutes)
	$(BIN)/python -m pytest -q

up: .venv/installed ## Run the Dagster UI and daemon, the MLflow UI and the gateway until Ctrl-C
	$(BIN)/llm-assets up

check: .venv/tested ## Lint, types and the chains' YAML
	$(BIN)/ruff check llm_assets llm_assets_tests benchmarks
	$(BIN)/mypy
	$(BIN)/dg check defs

clean: ## Remove the environment; data/ stays
	rm -rf .venv

.venv/installed: pyproject.toml constraints.txt
	@echo "Creating .venv with pinned packages: about 2.5 GB to download, 5 minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/tested: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[test,dev]"
	@touch $@
