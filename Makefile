# Two commands do everything: `make results` and `make test`. Each sets up .venv/ first if needed.
PYTHON ?= python3
CORES ?= all
CONFIG ?=

BIN := .venv/bin
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES) $(if $(CONFIG),--configfile $(CONFIG))
# The run's name, when a recipe asks for it.
RUN = $(shell $(BIN)/python workflow/configuration.py $(CONFIG) 2>/dev/null)

.PHONY: results test test-slurm slurm check lock clean

results: .venv/ready  ## Make tables, figures and report of a configuration (CONFIG=config/paper.yaml)
	$(BIN)/python workflow/configuration.py $(CONFIG)
	$(SNAKEMAKE)
	$(SNAKEMAKE) --report results/$(RUN)/report.html

test: .venv/ready-dev  ## Run the tests
	$(BIN)/pytest --numprocesses 2 --dist loadfile

# The plugin asks for the cluster at every start of Snakemake: the tests have it in a venv of its own,
# which borrows the rest from .venv.
test-slurm: .venv/ready-dev  ## Run the tests on a SLURM cluster of one node (root, Debian or Ubuntu)
	tests/slurm/install.sh
	$(PYTHON) -m venv .venv-slurm
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$(.venv-slurm/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/mg.pth"
	.venv-slurm/bin/pip install --quiet --disable-pip-version-check -r envs/requirements-slurm.txt
	trap tests/slurm/stop.sh EXIT; PYTHONPATH=$(CURDIR) .venv-slurm/bin/python -m pytest -m slurm tests/test_slurm.py

slurm: .venv/ready  ## Set up .venv/ for a SLURM cluster: see README.md
	$(BIN)/pip install --quiet --disable-pip-version-check -r envs/requirements-slurm.txt

check: .venv/ready-dev  ## Formatting and lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check workflow
	$(BIN)/snakemake --lint

.venv/ready: envs/requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mg needs Python 3.11 or newer; say: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r envs/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

.venv/ready-dev: .venv/ready envs/requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r envs/requirements-dev.txt
	touch $@

lock:  ## Pin what pyproject.toml asks for, at today's newest versions, in envs/
	$(PYTHON) envs/lock.py

clean:  ## Remove the virtual environment (results stay)
	rm -rf .venv .venv-slurm
