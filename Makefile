# Each target makes what it needs, the virtual environment included.

BIN := .venv/bin
INSTALLED := .venv/.installed
SEEDS ?= 200
MQTT ?= --mqtt :1883 --mqtt-ws :15675
REST := slow or interop or compat
FAST := not ($(REST))
TYPES := $(addprefix build/types/fluffle/,broker protocol raft storage)

# The first interpreter that is new enough; `make PYTHON=/path/to/python3` names another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	echo $$python && break; done)

.DEFAULT_GOAL := help
.PHONY: help serve cluster test check rest day lint nightly types simulate mutants bench tables abuse fuzz crash torture safety clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(INSTALLED) ## run the broker in the foreground, with MQTT; ARGS="--management :15672" adds options, such as pages, MQTT="--mqtt :1884" names other ports
	$(BIN)/fluffle serve $(MQTT) $(ARGS)

cluster: $(INSTALLED) ## run a cluster of three nodes in the foreground, with MQTT, for trying things out; ARGS="--mqtt 1893" names other ports
	$(BIN)/fluffle cluster up --mqtt 1883 $(ARGS)

test: $(INSTALLED) ## every test; ARGS="-k topic" narrows them
	$(BIN)/python -m pytest $(ARGS)

check: lint ## lint, types, layers and the fast tests: ten minutes of one core
	FLUFFLE_SUITE=day $(BIN)/python -m pytest -q -m "$(FAST)" $(ARGS)

rest: $(INSTALLED) ## the tests that make check leaves out
	FLUFFLE_SUITE=day $(BIN)/python -m pytest -m "$(REST)" $(ARGS)

day: $(INSTALLED) ## the tests of check and rest in one run
	FLUFFLE_SUITE=day $(BIN)/python -m pytest -q $(ARGS)

lint: types ## lint, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

nightly: $(INSTALLED) ## new seeds, all mutants, RabbitMQ, torture, coverage: hours; SEED=7 repeats one
	$(BIN)/python -m tests.nightly $(addprefix --seed ,$(SEED)) $(ARGS)

types: $(INSTALLED) $(TYPES) ## lay the tree of links that mypy reads

simulate: $(INSTALLED) ## clusters under faults: SEEDS=2000 seeds with 3 and with 5 nodes
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --nodes 3,5 $(ARGS)

mutants: $(INSTALLED) ## known mistakes, put into the code: is each found? ARGS="--family links" or "M6 R4a"
	$(BIN)/python -m tests.mutants $(ARGS)

bench: $(INSTALLED) ## compare with RabbitMQ on this machine; see benchmarks/
	$(BIN)/python -m benchmarks.compare $(ARGS)

tables: $(INSTALLED) ## measure all that docs/performance.md shows; an hour of a quiet machine
	$(BIN)/python -m benchmarks.compare --reps 2 --secs 3
	$(BIN)/python -m benchmarks.compare --suite durable --reps 2 --secs 3
	$(BIN)/python -m benchmarks.compare --suite quorum --reps 2 --secs 3
	$(BIN)/python -m benchmarks.backlog
	$(BIN)/python -m benchmarks.quorum
	$(BIN)/python -m benchmarks.own
	$(BIN)/python -m benchmarks.embedded

crash: $(INSTALLED) ## kill a node with clients at work, KILLS=100 times; ARGS="--seed 1" repeats one
	$(BIN)/python -m tests.crash --kills $(or $(KILLS),100) $(ARGS)

torture: $(INSTALLED) ## faults with clients at work, for TIME=300 seconds (120 at least: ten faults; all kinds: 3600)
	$(BIN)/python -m tests.torture $(or $(SYSTEM),fluffle) --seconds $(or $(TIME),300) $(ARGS)

safety: $(INSTALLED) ## torture for TIME=300 seconds, then SEEDS=200 seeds of everything: a table
	$(BIN)/python -m tests.safety --seconds $(or $(TIME),300) --seeds $(SEEDS) $(ARGS)

abuse: $(INSTALLED) ## abuse a node and watch it, for TIME=60 seconds; ARGS="--seed 2"
	$(BIN)/python -m tests.abuse --seconds $(or $(TIME),60) $(ARGS)

fuzz: $(INSTALLED) ## atheris on all that reads bytes, TIME=60 seconds each; ARGS="reader talk"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary atheris \
		--editable '.[fuzz]' || true
	$(BIN)/python -m tests.fuzz --seconds $(or $(TIME),60) $(ARGS)

clean: ## remove everything that can be made again; ./data stays
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "fluffle needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "installing fluffle and what its tests need into .venv; the first time takes a minute"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv || { \
		rm -rf .venv; \
		echo "$(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

build/types/fluffle/%:
	@mkdir -p $(@D)
	ln -sfn ../../../$* $@
