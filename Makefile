# Under the Hood: `make help` lists what can be asked for.
# A Python >= 3.11 and make are all it needs; the first target to run makes .venv and installs into it, once.
#   make run PYTHON=python3.12          another interpreter
#   make run VENV="$VIRTUAL_ENV"        an environment that you already have
#   make run ARGS="--notebook 04"       arguments for `course run`

VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.course-installed
PIP := $(PY) -m pip --disable-pip-version-check
ARGS ?=

# The first interpreter on the path that is new enough; empty if there is none.
NEW_ENOUGH = import sys; print("yes" if sys.version_info >= (3, 11) else "")
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11 python3.14 python,$(if \
	$(shell $(p) -c '$(NEW_ENOUGH)' 2>/dev/null),$(p))))

# Two torch jobs at once on two cores run at a fifth of the speed each, so `make -j` is taken with a smile.
.NOTPARALLEL:
.PHONY: help run test check lab bench notebooks clean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '%-16s%s\n' "$$name" "$$text"; done

$(STAMP): pyproject.toml constraints.txt
	@python="$(strip $(PYTHON))"; \
	if [ -x "$(PY)" ]; then python="$(PY)"; fi; \
	if [ -z "$$python" ] || [ -z "$$("$$python" -c '$(NEW_ENOUGH)' 2>&1 | grep -x yes)" ]; then \
		echo "Under the Hood needs Python 3.11 or newer; found: $$("$${python:-python3}" --version 2>&1 | head -n 1)." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.12 (remove $(VENV) if an older one made it)." >&2; \
		exit 1; \
	fi; \
	[ -x "$(PY)" ] || "$$python" -m venv "$(VENV)"
	$(PIP) install -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch "$(STAMP)"

run: $(STAMP)  ## execute the course headless on the embedded model, offline, and write build/report.html
	$(PY) -m course_utils.cli run $(ARGS)

test: $(STAMP)  ## the unit tests, then every notebook as a student gets it
	COURSE_BUILD="$(CURDIR)/build/test" $(PY) -m pytest --nbmake --nbmake-timeout=600 --durations=5 $(ARGS)

check: $(STAMP)  ## what CI adds: lint, promises about files, slow tests, mutants, the notebooks with the answers
	$(PY) -m ruff check .
	COURSE_BUILD="$(CURDIR)/build/check" $(PY) -m pytest -m "slow or repository" --durations=5
	rm -rf build/solved
	$(PY) -m course_utils.cli solved --output build/solved
	COURSE_BUILD="$(CURDIR)/build/check" $(PY) -m pytest --nbmake --nbmake-timeout=600 build/solved/*.ipynb

lab: $(STAMP)  ## open JupyterLab in notebooks/
	$(PY) -m jupyterlab --notebook-dir=notebooks

bench: $(STAMP)  ## measure speed side by side with the peers (45 minutes of a machine that does nothing else)
	@for file in $(filter-out %/harness.py %/report.py,$(wildcard benchmarks/*.py)); do \
		echo "== $$file"; $(PY) "$$file" || exit 1; \
	done
	$(PY) benchmarks/report.py $(ARGS)

notebooks: $(STAMP)  ## execute the notebooks and put the executed copies back into notebooks/
	$(PY) -m course_utils.cli run --model organism --output build
	cp build/notebooks/*.ipynb notebooks/

clean:  ## remove what runs, tests and tools left behind (.venv stays)
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find course_utils tests benchmarks notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
