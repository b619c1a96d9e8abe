# make demo and make test are what a newcomer types; `make help` lists the rest.
#
# The same objects (build/obj, position independent) go into libpyflow.a, libpyflow.so, the C tests and,
# in development, the extension module; `pip install` and wheels compile them again through setup.py.

PYTHON  ?= python3
PREFIX  ?= /usr/local
WERROR  ?= -Werror
VENV    := .venv
PY      := $(VENV)/bin/python
PKGS    := fftw3 fftw3f openblas
VERSION := $(shell sed -n 's/^version = "\([^"]*\)".*/\1/p' pyproject.toml)
SONAME  := libpyflow.so.$(firstword $(subst ., ,$(VERSION)))
STAGE   := $(CURDIR)/build/stage

# Expanded in recipes only, so after pkg-config has been installed.
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS))
PKG_LIBS   = $(shell pkg-config --libs $(PKGS)) -lm

# csrc/cflags is shared with setup.py; gcc and clang read flags from a file.
BASE_CFLAGS := -Icsrc @csrc/cflags $(if $(filter-out 0,$(PYFLOW_NATIVE)),-march=native) \
               -DPYFLOW_VERSION='"$(VERSION)"' $(CFLAGS)
SAN_CFLAGS  := $(BASE_CFLAGS) -O1 -g -fno-omit-frame-pointer \
               -fsanitize=address,undefined -fno-sanitize-recover=undefined

HEADERS  := $(wildcard csrc/*.h csrc/*.inc csrc/python/*.h)
SOURCES  := $(wildcard csrc/*.c)
OBJECTS  := $(SOURCES:csrc/%.c=build/obj/%.o)
SAN_OBJECTS := $(SOURCES:csrc/%.c=build/san/obj/%.o)
C_TESTS  := $(patsubst tests/c/%.c,%,$(wildcard tests/c/*.c))
C_EXAMPLES := $(patsubst examples/%.c,build/examples/%,$(wildcard examples/*.c))
C_FILES  := $(wildcard csrc/*.[ch] csrc/*.inc csrc/python/*.[ch] tests/c/*.[ch] examples/*.[ch] tests/kernels/*.[ch])

# Files of tests side by side, one for each processor.
PYTEST_JOBS ?= $(shell nproc 2>/dev/null || echo 2)
PYTEST = $(PY) -m pytest -q -n $(PYTEST_JOBS) --dist loadfile $(PYTEST_ARGS)

# `make V=1` shows the commands.
Q   := $(if $(V),,@)
say = @$(if $(V),:,printf '  %-8s%s\n' '$(1)' '$(2)')

# As many compilations at once as there are processors, unless a number was given.
ifeq ($(filter -j%,$(MAKEFLAGS)),)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif
ifneq ($(filter clean distclean,$(MAKECMDGOALS)),)
.NOTPARALLEL: # make clean test
endif

.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: demo test test-c test-python setup ext lib install wheel wheels deb arm64 sdist docs sanitize lint format clean distclean help FORCE

help:
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 13

demo: WERROR := # a newer compiler's new warning must not spoil somebody's first minute
demo: build/ext.ok $(VENV)/demo.ok ## set up, then fit a real table, print its likelihood, draw pictures
	$(PY) examples/demo.py $(DEMO_ARGS)

test: build/ext.ok $(VENV)/test.ok $(C_TESTS:%=build/tests/%) $(C_EXAMPLES) ## set up, then run every test
	@status=0; \
	tools/run-c-tests.sh C $(C_TESTS:%=build/tests/%) || status=1; \
	tools/run-c-tests.sh Examples-in-C $(C_EXAMPLES) || status=1; \
	$(PYTEST) || status=1; \
	exit $$status

setup: ## install what is missing and make .venv
	@rm -f build/deps-c.ok build/deps-python.ok
	@$(MAKE) --no-print-directory build/deps-c.ok build/deps-python.ok $(VENV)/demo.ok $(VENV)/test.ok

# ---- What it needs

# The C library alone asks for no Python; everything else asks for all at once.
C_ONLY := $(and $(MAKECMDGOALS),$(if $(filter-out lib install sanitize test-c clean,$(MAKECMDGOALS)),,yes))

build/deps-c.ok: tools/install-deps.sh $(if $(C_ONLY),,| build/deps-python.ok)
	@mkdir -p build
	@CC='$(CC)' tools/install-deps.sh c
	@touch $@

build/deps-python.ok: tools/install-deps.sh
	@mkdir -p build
	@PYTHON='$(PYTHON)' CC='$(CC)' tools/install-deps.sh c python
	@touch $@

# The package is installed as a path to this folder; the extension module is put beside its sources.
$(VENV)/base.ok: pyproject.toml | build/deps-python.ok
	$(call say,venv,$(VENV))
	$(Q)$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(Q)$(PY) -m pip install -q --disable-pip-version-check 'setuptools>=77' 'numpy>=2.0'
	@touch $@

$(VENV)/demo.ok: extras := plot,progress
$(VENV)/test.ok: extras := test,dev
$(VENV)/docs.ok: extras := docs
$(VENV)/test.ok: | $(VENV)/demo.ok
$(VENV)/docs.ok: | $(VENV)/test.ok
$(VENV)/demo.ok $(VENV)/test.ok $(VENV)/docs.ok: $(VENV)/base.ok
	$(call say,pip,$(extras))
	$(Q)PYFLOW_SKIP_EXT=1 $(PY) -m pip install -q --disable-pip-version-check --no-build-isolation -e '.[$(extras)]'
	@touch $@

# ---- The C library

# A file that changes only when the text does: what depends on it is then made again.
record = @mkdir -p build; echo '$(subst ','\'',$(1))' | cmp -s - $@ || echo '$(subst ','\'',$(1))' > $@

build/flags: FORCE
	$(call record,$(CC) $(BASE_CFLAGS))

build/sources: FORCE
	$(call record,$(SOURCES))

build/obj/%.o: csrc/%.c csrc/cflags build/flags | build/deps-c.ok
	@mkdir -p $(@D)
	$(call say,cc,$@)
	$(Q)$(CC) $(BASE_CFLAGS) -DNDEBUG $(WERROR) -fPIC -MMD -MP $(PKG_CFLAGS) -c -o $@ $<

build/san/obj/%.o: csrc/%.c csrc/cflags build/flags | build/deps-c.ok
	@mkdir -p $(@D)
	$(call say,cc,$@)
	$(Q)$(CC) $(SAN_CFLAGS) -MMD -MP $(PKG_CFLAGS) -c -o $@ $<

build/libpyflow.a: $(OBJECTS) build/sources
	@rm -f $@
	$(call say,ar,$@)
	$(Q)$(AR) rcs $@ $(OBJECTS)

build/san/libpyflow.a: $(SAN_OBJECTS) build/sources
	@rm -f $@
	$(call say,ar,$@)
	$(Q)$(AR) rcs $@ $(SAN_OBJECTS)

build/libpyflow.so: $(OBJECTS) build/sources
	$(call say,ld,$@)
	$(Q)$(CC) -shared $(LDFLAGS) -Wl,-soname,$(SONAME) -Wl,--no-undefined -o build/libpyflow.so.$(VERSION) $(OBJECTS) $(PKG_LIBS) -pthread
	$(Q)ln -sf libpyflow.so.$(VERSION) build/$(SONAME)
	$(Q)ln -sf $(SONAME) $@

pc = sed 's|@PREFIX@|$(1)|; s|@VERSION@|$(VERSION)|; s|@LIBS@|$(PKG_LIBS)|' csrc/pyflow.pc.in

build/pyflow.pc: csrc/pyflow.pc.in FORCE
	@mkdir -p build
	@$(call pc,$(PREFIX)) > $@

lib: build/libpyflow.a build/libpyflow.so build/pyflow.pc ## build/libpyflow.so, libpyflow.a and pyflow.pc

# $(1) is where files go, $(2) the prefix they will be used under.
define install-into
	$(call say,install,$(1))
	$(Q)install -d $(1)/include $(1)/lib/pkgconfig
	$(Q)install -m 644 csrc/pyflow.h $(1)/include/
	$(Q)install -m 644 build/libpyflow.a $(1)/lib/
	$(Q)install -m 755 build/libpyflow.so.$(VERSION) $(1)/lib/
	$(Q)ln -sf libpyflow.so.$(VERSION) $(1)/lib/$(SONAME)
	$(Q)ln -sf $(SONAME) $(1)/lib/libpyflow.so
	$(Q)$(call pc,$(2)) > $(1)/lib/pkgconfig/pyflow.pc
endef

install: build/libpyflow.a build/libpyflow.so ## install the C library under PREFIX (and DESTDIR)
	$(call install-into,$(DESTDIR)$(PREFIX),$(PREFIX))

# ---- The extension module, beside the Python files it belongs to

build/ext.ok: build/libpyflow.a $(wildcard csrc/python/*.c) $(HEADERS) csrc/cflags build/flags setup.py pyproject.toml $(VENV)/base.ok $(if $(wildcard pyflow/_core*.so),,FORCE)
	$(call say,ext,pyflow._core)
	$(Q)PYFLOW_ARCHIVE=build/libpyflow.a PYFLOW_WERROR=$(if $(WERROR),1,0) $(PY) setup.py -q build_ext --inplace --force
	@touch $@

ext: build/ext.ok ## the extension module, in place

# ---- Tests

build/tests/%: tests/c/%.c build/libpyflow.a build/flags
	@mkdir -p $(@D)
	$(call say,cc,$@)
	$(Q)$(CC) $(BASE_CFLAGS) $(WERROR) -Itests/c -MMD -MP -MT $@ -MF $@.d $(PKG_CFLAGS) -o $@ $< build/libpyflow.a $(WRAP) $(PKG_LIBS)

build/san/tests/%: tests/c/%.c build/san/libpyflow.a build/flags
	@mkdir -p $(@D)
	$(call say,cc,$@)
	$(Q)$(CC) $(SAN_CFLAGS) -Itests/c -MMD -MP -MT $@ -MF $@.d $(PKG_CFLAGS) -o $@ $< build/san/libpyflow.a $(WRAP) $(PKG_LIBS)

# These two count and refuse allocations: tests/c/allocator.h.
WRAPPED := test_memory test_fuzz
$(WRAPPED:%=build/tests/%) $(WRAPPED:%=build/san/tests/%): WRAP := \
    $(foreach f,malloc calloc realloc posix_memalign aligned_alloc free,-Wl,--wrap=$(f))

test-c: $(C_TESTS:%=build/tests/%) ## the C tests
	@tools/run-c-tests.sh C $^

# C examples are built as a user would: against an installed library, through pkg-config.
build/stage.ok: build/libpyflow.a build/libpyflow.so csrc/pyflow.h csrc/pyflow.pc.in
	$(call install-into,$(STAGE),$(STAGE))
	@touch $@

build/examples/%: examples/%.c build/stage.ok
	@mkdir -p $(@D)
	$(call say,cc,$@)
	$(Q)$(CC) -std=c11 -O2 -Wall -Wextra $(WERROR) -o $@ $< \
	    $$(PKG_CONFIG_PATH=$(STAGE)/lib/pkgconfig pkg-config --cflags --libs pyflow) -lm -Wl,-rpath,$(STAGE)/lib

test-python: build/ext.ok $(VENV)/test.ok ## the Python tests (PYTEST_ARGS='-k name')
	$(PYTEST)

# OpenBLAS keeps threads and buffers to the end of the process: tools/lsan.supp names them.
sanitize: $(C_TESTS:%=build/san/tests/%) ## the C tests under the address and undefined-behaviour sanitizers
	@OPENBLAS_NUM_THREADS=1 \
	ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1 \
	LSAN_OPTIONS=suppressions=tools/lsan.supp:print_suppressions=0 \
	UBSAN_OPTIONS=print_stacktrace=1 \
	TEST_TIMEOUT=1200 tools/run-c-tests.sh Sanitized $^

lint: $(VENV)/test.ok ## formatting and static checks
	$(if $(C_FILES),$(VENV)/bin/clang-format --dry-run -Werror $(C_FILES))
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(VENV)/test.ok ## format C and Python in place
	$(if $(C_FILES),$(VENV)/bin/clang-format -i $(C_FILES))
	$(VENV)/bin/ruff check --fix-only -q .
	$(VENV)/bin/ruff format .

# ---- Documentation

docs: build/ext.ok $(VENV)/docs.ok ## build/docs/html: the documentation; its figures are made, warnings are errors
	$(Q)MPLBACKEND=Agg $(PY) -m sphinx -W --keep-going -q -b html docs build/docs/html
	@echo 'open build/docs/html/index.html'

# ---- Packages

sdist: $(VENV)/test.ok ## dist/pyflow_sinf-VERSION.tar.gz
	$(PY) -m build --sdist --outdir dist .

wheel: $(VENV)/test.ok ## a manylinux wheel with FFTW and OpenBLAS inside, tested without the system's
	$(PY) tools/wheel.py

PYTHONS ?= 3.10 3.11 3.12 3.13 3.14
wheels: $(VENV)/test.ok ## the same for each of PYTHONS='3.10 3.11 ...' that is there
	$(PY) tools/wheel.py $(PYTHONS)

deb: ## a Debian package, dist/python3-pyflow-sinf_VERSION_ARCH.deb
	tools/deb.sh

arm64: ## the C library and tests for arm64, run in an emulator (ARM64_TESTS=test_by_hand)
	tools/arm64.sh $(ARM64_TESTS)

clean: ## remove what was built, except .venv
	rm -rf build dist pyflow/_core*.so *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## remove .venv too
	rm -rf $(VENV)

-include $(OBJECTS:.o=.d) $(SAN_OBJECTS:.o=.d) $(C_TESTS:%=build/tests/%.d) $(C_TESTS:%=build/san/tests/%.d)
