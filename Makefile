# The course's commands. `make` alone lists them.

ifndef PYTHON
# The first of these that the course runs on; helpers/environment.py knows which and says the rest.
PYTHON := $(or $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python helpers/environment.py --help >/dev/null 2>&1 && echo $$python && break; done),python3)
endif
IN_VENV = .venv/bin/python
# More options for JupyterLab, such as LABFLAGS=--no-browser.
LABFLAGS =
# JupyterLab refuses to run as root unless told; in a container root is often the only user.
AS_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)
ROOT_NOTE = You are root, and so is every notebook cell: fine in a container, unwise elsewhere.

.PHONY: help lab test lessons data bench experiments lint clean environment environment-dev

help:
	@echo 'make lab          make the environment, then open JupyterLab on lesson 00'
	@echo 'make test         make the environment, then run every test and every lesson'
	@echo 'make lessons      run the lessons and store their outputs'
	@echo 'make data         build the files in data/ from installed documentation, two minutes'
	@echo 'make bench        measure on your machine what a table and its vectors cost, ten minutes'
	@echo 'make experiments  run the grids that lesson 10 draws, half an hour'
	@echo 'make lint         look for mistakes and untidy code'
	@echo 'make clean        delete .venv and the caches'

lab: environment
	@$(if $(AS_ROOT),echo "$(ROOT_NOTE)",:)
	$(IN_VENV) -m jupyterlab $(AS_ROOT) --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(LABFLAGS)

test: lint
	CI=1 $(IN_VENV) -m pytest -q -n 2 --dist loadfile --nbval --nbval-current-env tests notebooks

lint: environment-dev
	$(IN_VENV) -m ruff check

lessons: environment-dev
	$(IN_VENV) -m helpers.lessons

data: environment
	$(IN_VENV) -m helpers.pretraining

bench: environment
	$(IN_VENV) -m tests.benchmarks

experiments: environment
	$(IN_VENV) -m tests.experiments

environment environment-dev:
	@command -v $(PYTHON) >/dev/null || { \
		echo 'There is no $(PYTHON). Install Python 3.11 or newer, with its venv module.' >&2; exit 1; }
	@$(PYTHON) helpers/environment.py $(if $(filter %-dev,$@),--dev)

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -prune -exec rm -rf {} +
