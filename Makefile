# make demo and make test set up all they need in .venv, once.
PYTHON ?= python3
CORES ?= all
BIN := .venv/bin
UV_VERSION := 0.13.9

ifneq ($(words $(CURDIR)),1)
$(error The path $(CURDIR) has a blank, which Snakemake cannot run jobs with; move this folder to a path without blanks)
endif

.PHONY: demo test test-slurm lint benchmark lock clean

demo: .venv/ready
	$(BIN)/snakemake --cores $(CORES) report

test: .venv/ready
	$(BIN)/python -m pytest --numprocesses 2

# Starts a Slurm of its own on this machine, as root; TESTS=-k "..." picks some.
test-slurm: .venv/ready
	$(BIN)/python -m pytest tests/cluster $(TESTS)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

benchmark: .venv/ready
	for name in demo seeds texts scores memory extraction explanations edits retrieval explorer; do \
		echo; echo "# $$name"; PYTHONPATH=scripts $(BIN)/python tools/benchmark_$$name.py || exit; done

lock: .venv/ready
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade \
		--extra workflow --extra test --output-file envs/requirements.txt pyproject.toml

clean:
	rm -rf results .snakemake .pytest_cache .ruff_cache

.venv/ready: envs/requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; this is %d.%d. Name another one with make PYTHON=..." % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode --requirements envs/requirements.txt
	@touch $@
