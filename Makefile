# The course's commands. `make` alone lists them.

ifndef PYTHON
# The first of these that the course runs on; tools/environment.py knows which and says the rest.
PYTHON := $(or $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python tools/environment.py --help >/dev/null 2>&1 && echo $$python && break; done),python3)
endif
IN_VENV = .venv/bin/python
# More options for JupyterLab, such as LABFLAGS=--no-browser.
LABFLAGS =
# Packages for participants: WHEELS=1, or the systems to fetch them for: WHEELS="windows-3.12 macos-3.13".
WHEELS =
# The one lesson that is meant: LESSON=03, or LESSON=03_tied_weights for a side lesson.
LESSON =
# JupyterLab refuses to run as root unless told; in a container root is often the only user.
AS_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)
ROOT_NOTE = You are root, and so is every notebook cell: fine in a container, unwise elsewhere.

.PHONY: help lab check update pristine test lint lessons clean environment environment-dev
.PHONY: site links workshop browser tables data bench experiments

help:
	@echo 'make lab          make the environment, then open JupyterLab on lesson 00'
	@echo 'make check        make the environment, then say whether this machine is ready for a lesson'
	@echo 'make update       pull the newest lessons; notebooks that you changed stay as you have them'
	@echo 'make pristine     LESSON=03: that lesson as published; your version goes to kept/'
	@echo 'make test         make the environment, then run every test and every lesson'
	@echo 'make site         build the course as pages, build/site/index.html'
	@echo 'make links        try every link to other places; needs a network'
	@echo 'make workshop     build the kit to teach with, build/workshop/; WHEELS=1 adds the packages'
	@echo 'make browser      try lessons, slides and every page of the site in a real browser'
	@echo 'make lessons      run the lessons and store their outputs; LESSON=03 only that one'
	@echo 'make tables       write anew what is drawn: minutes, tables, plans, links to the glossary'
	@echo 'make data         build the files in data/ from installed documentation, three minutes'
	@echo 'make bench        measure on your machine what a table and its vectors cost, ten minutes'
	@echo 'make experiments  run the grids that lessons 08 and 10 draw, forty minutes'
	@echo 'make lint         look for mistakes and untidy code'
	@echo 'make clean        delete .venv, build and the caches'

lab: environment
	@$(if $(AS_ROOT),echo "$(ROOT_NOTE)",:)
	$(IN_VENV) -m jupyterlab $(AS_ROOT) --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(LABFLAGS)

check:
	@$(PYTHON) tools/environment.py --check

update: environment
	@$(IN_VENV) -m tools.update

pristine:
	@$(PYTHON) tools/update.py --pristine $(LESSON)

# One thread each: two workers with two threads each would fight over two cores. Files in their order,
# not those with most tests first: the longest have few.
test: lint
	CI=1 OMP_NUM_THREADS=1 $(IN_VENV) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --nbval --nbval-current-env tests notebooks

lint: environment-dev
	$(IN_VENV) -m ruff check

# LC_ALL: Sphinx ends at a locale that the system has not.
site: environment-dev
	LC_ALL=C $(IN_VENV) -m sphinx -q -W --keep-going -j auto -c site . build/site
	@echo 'Open build/site/index.html'

links: environment-dev
	LC_ALL=C $(IN_VENV) -m sphinx -q --keep-going -b linkcheck -c site . build/links

workshop: environment-dev
	OMP_NUM_THREADS=1 $(IN_VENV) -m tools.kit.workshop $(if $(filter 1,$(WHEELS)),--wheels,$(if $(WHEELS),--wheels $(WHEELS)))

browser: environment-dev
	$(IN_VENV) -m pytest -q -n 2 --dist loadfile -m browser tests

lessons: environment-dev
	$(IN_VENV) -m tools.lessons $(LESSON)
	@$(IN_VENV) -m tools.glossary
	@$(IN_VENV) -m tools.tables

tables: environment-dev
	@$(IN_VENV) -m tools.glossary
	@$(IN_VENV) -m tools.tables

data: environment
	$(IN_VENV) -m tools.corpus

bench: environment
	$(IN_VENV) -m tools.bench

experiments: environment
	$(IN_VENV) -m tools.experiments

environment environment-dev:
	@command -v $(PYTHON) >/dev/null || { \
		echo 'There is no $(PYTHON). Install Python 3.11 or newer, with its venv module.' >&2; exit 1; }
	@$(PYTHON) tools/environment.py $(if $(filter %-dev,$@),--dev)

clean:
	rm -rf .venv build .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -prune -exec rm -rf {} +
