# One set of verbs, here and in CI. Needs python3 (>= 3.11) and make; everything else comes from PyPI, with hashes.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo up test test-service nightly check format build bench bench-pipeline bench-modes profile soak conformance interop clean

export UV_PYTHON_DOWNLOADS := never
export PIP_DISABLE_PIP_VERSION_CHECK := 1

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LINTED := fulcrum_mcp adapters bench tests infra/docker

help:
	@echo "make demo         a gateway, two real MCP servers and an agent, on your screen in under a minute"
	@echo "make up           the gateway itself; ARGS='--config mcp.json --policies DIR'"
	@echo "make test         all tests but the large ones (under 8 minutes on 2 cores)"
	@echo "make test-service the tests on real Postgres, Valkey and NATS servers"
	@echo "make nightly      the large ones, about three hours; ARGS=tests/service/test_ledger_steps.py for those of one file"
	@echo "make check        format, lint, types, import contracts, deployment files"
	@echo "make build        wheel and sdist, tried in a clean environment"
	@echo "make bench        what a governed call costs; COLUMNS='direct bare nginx fastmcp fulcrum' ROUNDS=3 SECONDS=3"
	@echo "make bench-pipeline  records a second from the spool into Postgres, and after outages; ARGS='--rate 2000'"
	@echo "make bench-modes  what each durability mode costs, embedded and on the real parts; ARGS='--rounds 5'"
	@echo "make profile      where the time of a governed call goes"
	@echo "make soak         200,000 governed calls, and whether memory stays flat"
	@echo "make conformance  the MCP conformance suites, direct and through the gateway; SERVER='COMMAND', CLIENT='COMMAND'"
	@echo "make interop      clients and servers of others, direct and through the gateway; fetches them from PyPI and npm"
	@echo "make clean        remove what these verbs made"

setup: $(READY)

$(READY): requirements.lock pyproject.toml Makefile .ci/setup
	@sh .ci/setup $(VENV)
	@touch $@

demo: $(READY)
	@$(BIN)/fulcrum demo $(ARGS)

up: $(READY)
	@$(BIN)/fulcrum up $(ARGS)

test: $(READY)
	$(BIN)/pytest -m "not nightly and not parts" $(ARGS)

test-service: $(READY)
	$(BIN)/pytest -m "parts and not nightly" $(ARGS)

nightly: $(READY)
	$(BIN)/pytest -m nightly --timeout 3600 $(ARGS)

check: $(READY)
	$(BIN)/ruff format --check $(LINTED)
	$(BIN)/ruff check $(LINTED)
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	@sh .ci/infra $(BIN)

format: $(READY)
	$(BIN)/ruff check --fix --exit-zero $(LINTED)
	$(BIN)/ruff format $(LINTED)

build: $(READY)
	rm -rf dist
	$(BIN)/uv build --out-dir dist
	FULCRUM_DIST=dist $(BIN)/pytest -q tests/packaging

# A shell may export its own COLUMNS and SECONDS: only what was meant for us counts.
given = $(if $(filter command,$(firstword $(origin $1))),$($1))
bench: $(READY)
	$(BIN)/python -m bench $(if $(call given,COLUMNS),--columns "$(COLUMNS)") \
		$(if $(call given,ROUNDS),--rounds $(ROUNDS)) $(if $(call given,SECONDS),--seconds $(SECONDS)) $(ARGS)

bench-pipeline: $(READY)
	$(BIN)/python -m bench.pipeline $(ARGS)

bench-modes: $(READY)
	$(BIN)/python -m bench.modes $(ARGS)

soak: $(READY)
	$(BIN)/python -m bench.soak $(ARGS)

profile: $(READY)
	$(BIN)/python -m bench.profile $(ARGS)

conformance: $(READY)
	$(BIN)/python -m bench.conformance --out bench/results/conformance.md $(if $(SERVER),--server "$(SERVER)") \
		$(if $(CLIENT),--client "$(CLIENT)") $(ARGS)

interop: $(READY)
	$(BIN)/python -m bench.interop $(ARGS)

clean:
	rm -rf $(VENV) .cache build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
