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

# Two torch jobs that each want all cores run at a fifth of the speed, so `make -j` is taken with a smile, and tests run
# in as many processes as WORKERS says (each of up to 2 GB) with one thread each.
WORKERS ?= 2
AT_ONCE := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
SHARED := -n $(WORKERS) --dist loadfile
.NOTPARALLEL:
.PHONY: help run test check test-lowest test-latest test-colab site lab bench notebooks clean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '%-18s%s\n' "$$name" "$$text"; done

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
	$(AT_ONCE) COURSE_BUILD="$(CURDIR)/build/test" $(PY) -m pytest $(SHARED) --nbmake --nbmake-timeout=900 \
		--durations=12 $(ARGS)

check: $(STAMP)  ## what CI adds: lint, promises about files, slow tests, mutants, the notebooks with the answers
	$(PY) -m ruff check .
	$(AT_ONCE) COURSE_BUILD="$(CURDIR)/build/check" $(PY) -m pytest $(SHARED) -m "slow or repository" --durations=12
	rm -rf build/solved
	$(PY) -m course_utils.cli solved --output build/solved
	$(AT_ONCE) COURSE_BUILD="$(CURDIR)/build/check" $(PY) -m pytest $(SHARED) --nbmake --nbmake-timeout=900 build/solved/*.ipynb

# In an environment of its own: $(1) names it, $(2) is what pip is told beside torch. TORCH=torch==2.6.0 asks for another
# torch than the tested one, whose builds for a CPU alone are not on PyPI: most others bring gigabytes of CUDA.
TORCH ?= $(shell grep '^torch==' constraints.txt)
define TEST_IN
	[ -x build/$(1)/venv/bin/python ] || $(PY) -m venv build/$(1)/venv
	build/$(1)/venv/bin/python -m pip --disable-pip-version-check install -q $(2) "$(TORCH)" -e '.[dev]'
	build/$(1)/venv/bin/python -m pip freeze --exclude-editable > build/$(1)/freeze.txt
	$(AT_ONCE) COURSE_BUILD="$(CURDIR)/build/$(1)" build/$(1)/venv/bin/python -m pytest $(SHARED) --nbmake \
		--nbmake-timeout=600 -m "not slow and not repository" tests course_utils notebooks/00_start_here.ipynb $(ARGS)
endef

test-lowest: $(STAMP)  ## the unit tests and notebook 00 on the lowest versions that pyproject.toml allows
	mkdir -p build/lowest
	$(PY) tests/lowest.py > build/lowest/constraints.txt
	$(call TEST_IN,lowest,-c build/lowest/constraints.txt)

test-latest: $(STAMP)  ## the same on the newest versions that it allows
	$(call TEST_IN,latest,--upgrade --upgrade-strategy eager)

test-colab: $(STAMP)  ## imitate a hosted notebook: what the first cell installs, and that it replaces nothing
	$(PY) tests/colab_imitation.py build/colab older --torch "$(TORCH)" $(ARGS)

site: $(STAMP)  ## the whole course as static pages in build/site, from the executed notebooks
	$(PY) -m course_utils.cli site $(ARGS)

lab: $(STAMP)  ## open JupyterLab in notebooks/
	$(PY) -m jupyterlab --notebook-dir=. --LabApp.default_url=/lab/tree/notebooks

bench: $(STAMP)  ## measure speed side by side with the peers (45 minutes of a machine that does nothing else)
	@for file in $(filter-out %/harness.py %/report.py,$(wildcard benchmarks/*.py)); do \
		echo "== $$file"; $(PY) "$$file" || exit 1; \
	done
	$(PY) benchmarks/report.py $(ARGS)

notebooks: $(STAMP)  ## execute the notebooks and put the executed copies back into notebooks/
	$(PY) -m course_utils.cli run --model organism --output build
	cp build/notebooks/*.ipynb notebooks/
	$(PY) -m course_utils.cli instructors

clean:  ## remove what runs, tests and tools left behind (.venv stays)
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find course_utils tests benchmarks notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
