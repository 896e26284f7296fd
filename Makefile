# make demo: install, then run the whole workflow on generated data.  make test: install, then lint and test; make quick: without what takes long.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check

.PHONY: demo install test quick lint gpu-proof clean

demo: install
	$(VENV)/bin/alexnet run --recipe demo

install: $(VENV)/.installed

test: $(VENV)/.installed-dev lint
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile

quick: $(VENV)/.installed-dev lint
	$(VENV)/bin/python -m pytest -q -m "not slow and not browser and not gpu"

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

gpu-proof: $(VENV)/.installed-dev
	$(VENV)/bin/python -m workflows.bench.gpu_proof

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "alexnet needs Python 3.11 or newer; set PYTHON=python3.11")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) *.egg-info
