# Every target is a thin line over `python -m ...`; ARGS="..." passes anything on.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
DATA ?= data
DEMO = $(DATA)/shards/demo-glcm
VENV := .venv
PY := $(VENV)/bin/python

# What a target takes from the command line. Make ignores other names, and the wish with them:
# PROFIL=lips would quietly give the default profile.
TAKES := DATA PYTHON ARGS
TAKES_setup := WHEELS TORCH_INDEX CLUSTER
TAKES_wheels := $(TAKES_setup)
TAKES_manifest := DATASET ROOT OUT TABLE ANNOTATIONS
TAKES_shards := $(TAKES_manifest) PROFILE FACES WORKERS RAY_ADDRESS
TAKES_pretrain := METHOD PRESET SHARDS RUN
TAKES_eval := TASK CHECKPOINT SHARDS RUN
TAKES_study := NAME SIZE CORPORA SHARDS TASK_SHARDS RUN

GOALS := $(or $(MAKECMDGOALS),$(.DEFAULT_GOAL))
TAKEN := $(TAKES) $(foreach goal,$(GOALS),$(TAKES_$(goal)))
GIVEN := $(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name)))
nearest = $(shell $(PYTHON) -c 'import difflib, sys; \
	near = difflib.get_close_matches(sys.argv[1].upper(), sys.argv[2:], 1, 0.5); \
	print(*(f"Did you mean {name}=?" for name in near))' '$(1)' $(TAKEN) 2>&-)
refuse = $(error make $(GOALS) takes no $(1)=. $(call nearest,$(1)) It takes $(TAKEN:%=%=))
$(foreach name,$(filter-out $(TAKEN) VENV PY SHELL MAKE%,$(GIVEN)),$(call refuse,$(name)))

# --root only where ROOT is given, and so on: what is left out has its default in Python.
opt = $(if $($(1)),--$(2) "$($(1))")
INPUT = --dataset $(DATASET) --data "$(DATA)" $(call opt,ROOT,root) $(call opt,OUT,out) \
	$(call opt,TABLE,table) $(call opt,ANNOTATIONS,annotations)

.PHONY: help
help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# --- install -----------------------------------------------------------------------------------

# These three count only where they stand behind `make`: a CLUSTER of the environment is another one.
$(foreach name,WHEELS TORCH_INDEX CLUSTER,$(if $(filter-out command,$(firstword $(origin $(name)))),$(eval $(name) :=)))
# WHEELS=DIR      a folder of wheels instead of a network; `make wheels` fills it
# TORCH_INDEX=URL the package index with the torch for your GPU; without it, the one pip finds
# CLUSTER=1       also Ray's dashboard and job server, which the head of a cluster needs
LOCKS := -r requirements.lock $(if $(CLUSTER),-r requirements-cluster.lock)
PIP_FROM := $(if $(WHEELS),--no-index --find-links "$(WHEELS)",$(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)"))

# A .venv knows by a hash for which torch it was made; another wish makes it anew, never mixes.
WISH := $(if $(TORCH_INDEX)$(CLUSTER),$(shell printf '%s' '$(TORCH_INDEX) $(CLUSTER)' | sha256sum | cut -c 1-16))
HAVE := $(shell cat $(VENV)/.done 2>/dev/null)

.PHONY: setup
setup: $(VENV)/.done  ## [WHEELS= TORCH_INDEX= CLUSTER=]: .venv with the locked dependencies (a second call is instant)

$(VENV)/.done: requirements.lock pyproject.toml $(if $(filter-out $(HAVE),$(WISH)),another-wish)
	@command -v $(PYTHON) >/dev/null || { echo "make setup needs Python 3.11 or newer with venv: apt-get install python3.11 python3.11-venv (or PYTHON=/path/to/python make setup)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make setup needs Python 3.11 or newer; $(PYTHON) is older. Name another: PYTHON=/path/to/python make setup"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "make setup needs the venv module: apt-get install python3-venv"; exit 1; }
	@[ -z "$(WHEELS)" ] || [ -d "$(WHEELS)" ] || { echo "WHEELS=$(WHEELS) is no folder; on a machine with a network, make wheels WHEELS=$(WHEELS) fills it"; exit 1; }
	@echo "installing the locked packages into $(VENV): about 2.5 GB on disk, a few minutes"
	@$(PYTHON) -m venv $(if $(filter another-wish,$^),--clear) $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check $(PIP_FROM) $(LOCKS)
	@echo "$(CURDIR)" > "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/glav.pth"
	@printf '%s' '$(WISH)' > $@

.PHONY: another-wish
another-wish:

.PHONY: wheels
wheels:  ## WHEELS=DIR [TORCH_INDEX= CLUSTER=]: fill a folder for `make setup WHEELS=DIR` without a network
	@[ -n "$(WHEELS)" ] || { echo "name a folder: make wheels WHEELS=/path/to/wheels"; exit 2; }
	@builder=$$(mktemp -d) && trap 'rm -rf "$$builder"' EXIT && $(PYTHON) -m venv "$$builder" && \
		"$$builder/bin/python" -m pip wheel --quiet --disable-pip-version-check --wheel-dir "$(WHEELS)" \
		$(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)") $(LOCKS)
	@echo "$(WHEELS) is full; where there is no network: make setup WHEELS=$(WHEELS)$(if $(CLUSTER), CLUSTER=$(CLUSTER))"

.PHONY: doctor
doctor: setup  ## libraries, model files, codecs, Ray, disk: what is missing and how to get it
	@$(PY) -m pipeline doctor

# --- data --------------------------------------------------------------------------------------

.PHONY: need-dataset
need-dataset: setup
ifndef DATASET
	@echo "name a data set, such as make shards DATASET=kinetics; these are known:"; $(PY) -m manifests datasets; exit 2
endif

.PHONY: manifest
manifest: need-dataset  ## DATASET= [ROOT= TABLE= ANNOTATIONS=]: scan a data set, write its manifest
	@$(PY) -m manifests build $(INPUT) $(ARGS)

.PHONY: shards
shards: need-dataset  ## DATASET= [ROOT= OUT= PROFILE= FACES= WORKERS= RAY_ADDRESS=]: raw videos -> shards
	@$(PY) -m pipeline shards $(INPUT) $(call opt,PROFILE,profile) $(call opt,FACES,faces) \
		$(call opt,WORKERS,workers) $(call opt,RAY_ADDRESS,ray-address) $(ARGS)

.PHONY: demo
demo: setup  ## generated corpus -> shards -> a small model -> its evaluation -> one page
	@$(PY) -m pipeline shards --dataset demo --data "$(DATA)" $(ARGS)
	@$(PY) -m pipeline verify "$(DEMO)" --deep
	@$(PY) -m pipeline peek "$(DEMO)" --html "$(DEMO)/peek.html"
	@$(PY) -m train pretrain --shards "$(DEMO)" --run demo --preset tiny --batch-size 8 --schedule-steps 200 --val-every 50
	@echo "200 steps show that the trainer runs, not what GLCM can learn: does its attention lie on what sounds, in the clips it was trained on? mass_ratio is 1 for a uniform map, :centre is 'look at the middle'"
	@$(PY) -m train eval --task localization --checkpoint runs/demo --shards "$(DEMO)" --split train --allow-missing
	@$(PY) -m train report
	@echo "open $(abspath $(DEMO))/report.html and peek.html beside it, and $(abspath runs)/report.html"

# --- training ----------------------------------------------------------------------------------

.PHONY: pretrain
pretrain: setup  ## [METHOD=glcm PRESET= SHARDS= RUN=]: learn from shards; goes on where RUN stands
	@$(PY) -m train pretrain --data "$(DATA)" $(call opt,METHOD,method) $(call opt,PRESET,preset) \
		$(call opt,SHARDS,shards) $(call opt,RUN,run) $(ARGS)

.PHONY: eval
eval: setup  ## TASK= [CHECKPOINT= SHARDS= RUN=]: what a checkpoint is worth, by a paper's protocol
	@$(PY) -m train eval --data "$(DATA)" --task "$(TASK)" $(call opt,CHECKPOINT,checkpoint) \
		$(call opt,SHARDS,shards) $(call opt,RUN,run) $(ARGS)

.PHONY: study
study: setup  ## NAME=table5, or all [SIZE= CORPORA= SHARDS= TASK_SHARDS= RUN=]: a table of the paper, trained anew
	@$(PY) -m train study "$(NAME)" $(call opt,SIZE,size) $(call opt,CORPORA,corpora) \
		$(call opt,SHARDS,shards) $(call opt,TASK_SHARDS,task-shards) $(call opt,RUN,run) $(ARGS)

.PHONY: evidence
evidence: setup  ## what the studies found -> docs/evidence.md, docs/evidence-details.md, docs/evidence/
	@$(PY) -m train evidence $(ARGS)

.PHONY: report
report: setup  ## all results beside the papers' numbers: runs/report.html and runs/report.md
	@$(PY) -m train report $(ARGS)

# --- development -------------------------------------------------------------------------------

.PHONY: test
test: setup  ## the tests
	$(PY) -m pytest -n 2 -m "not slow" $(ARGS)

.PHONY: test-all
test-all: setup  ## also the slow tests
	$(PY) -m pytest -n 2 $(ARGS)

.PHONY: check
check: setup  ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

.PHONY: bench
bench: setup  ## the speed table: our pipeline against ffmpeg and a plain script, on the same files
	$(PY) -m bench $(ARGS)

.PHONY: lock
lock: setup  ## requirements.lock from pyproject.toml (names and versions only)
	$(PY) -m piptools compile --quiet --strip-extras --extra dev --no-emit-index-url --no-emit-find-links --no-header --annotation-style line -o requirements.lock pyproject.toml
	@sed -i 's/^torch==\([0-9.]*\)+[a-z0-9]*/torch==\1/' requirements.lock  # one pin for CPU and CUDA builds
	$(PY) -m piptools compile --quiet --strip-extras --no-emit-index-url --no-emit-find-links --no-header --annotation-style line -c requirements.lock -o requirements-cluster.lock requirements-cluster.in
