# make demo and make test set up all they need in .venv, once.
PYTHON ?= python3
CORES ?= all
BIN := .venv/bin
UV_VERSION := 0.13.9

.PHONY: demo test test-crash test-damage test-s3 test-slurm test-same audit lint benchmark lock clean

demo: .venv/ready
	$(BIN)/snakemake --cores $(CORES) report

test: .venv/ready
	$(BIN)/python -m pytest --numprocesses 2

# Starts a Slurm of its own on this machine, as root; TESTS=-k "..." picks some.
test-slurm: .venv/ready
	$(BIN)/python -m pytest tests/cluster $(TESTS)

test-crash: .venv/ready
	$(BIN)/python tools/crash.py

FILES ?= 1000
test-damage: .venv/ready
	PYTHONPATH=scripts:tests:tests/unit $(BIN)/python tests/damage.py $(FILES)

test-same: .venv/ready
	PYTHONPATH=scripts:tests $(BIN)/python tools/same_bytes.py

# The plugin and a server, moto, lie apart: botocore needs an older python-dateutil than the lock has.
test-s3: .venv/ready
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target .venv/s3 \
		"snakemake-storage-plugin-s3>=0.3.6,<0.4" "moto[server,s3]>=5.2,<6"
	PYTHONPATH="$(CURDIR)/.venv/s3" $(BIN)/python -m pytest tests/storage

audit: .venv/ready
	$(BIN)/uv tool run pip-audit==2.10.1 --requirement envs/requirements.txt --require-hashes --disable-pip

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
