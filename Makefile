# Every command a contributor needs. Nothing has to be installed by hand but make and Python >= 3.10:
# tools go into .venv here, machines into containers (see lab/README.md).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
TOX := $(BIN)/tox run
OTHER := .venv-other

.DEFAULT_GOAL := help
.PHONY: help sshd demo test lint types unit integration bench lab-up lab-down lab-shell docs screenshots clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY)  ## run a notebook on a private sshd of this machine, and show the timings
	$(BIN)/python demo/demo.py

test: $(READY) sshd  ## all checks: lint, types, unit tests, integration tests in the lab
	$(TOX) -e lint,types,unit,integration

lint types unit integration: $(READY)
	$(TOX) -e $@
unit: sshd
sshd: $(READY)  # many unit tests run a private one
	@$(BIN)/python demo/demo.py --sshd
lint:  ## ruff: rules and format
types:  ## mypy, strict
unit:  ## unit tests
integration:  ## integration tests in the lab

lab-up: $(READY)  ## bring the lab up: laptop, bastion and remote machine
	$(BIN)/python lab/lab.py up

lab-down: $(READY)  ## take the lab down; the images stay
	$(BIN)/python lab/lab.py down

lab-shell: $(READY)  ## a shell on the lab's laptop
	$(BIN)/python lab/lab.py shell

bench: $(READY) sshd $(OTHER)/ready  ## measure beside a local kernel and sshpyk 1.25; BENCH="--quick" for 10 minutes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	$(BIN)/python benchmarks/bench.py $(BENCH)

# The other tool has the same import name, so it lives in a virtual environment of its own.
$(OTHER)/ready:
	$(PYTHON) -m venv $(OTHER)
	$(OTHER)/bin/python -m pip install --quiet --disable-pip-version-check \
	    'sshpyk==1.25' ipykernel 'jupyter-server>=2'
	@touch $@

docs: $(READY)  ## write docs/reference.md and docs/errors.md anew from the source
	$(BIN)/python docs/generate.py

screenshots: $(READY)  ## take the pictures of the documentation anew
	$(BIN)/python lab/screenshots.py

clean:  ## remove what was built here (not the lab's images)
	rm -rf $(VENV) $(OTHER) .tox .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist lab/.build

# Debian and Ubuntu ship venv apart from Python; pip says nothing useful without it.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("sshpyk needs Python 3.10 or newer: make PYTHON=python3.X")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo "installing python3-venv"; apt-get update -q && \
	        DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends python3-venv; \
	    else \
	        echo "$(PYTHON) has no venv module: on Debian or Ubuntu, apt install python3-venv" >&2; exit 1; \
	    fi; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
