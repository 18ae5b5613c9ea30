# Two commands: `make demo` and `make test`. Everything they need is set up on the way.
PYTHON3 ?= $(shell command -v python3.11 || command -v python3)
BIN := $(CURDIR)/.venv/bin
PINS := --universal --python-version 3.11 --no-header --no-annotate
export PATH := $(BIN):$(PATH)
export MLFLOW_TRACKING_URI ?= sqlite:///$(CURDIR)/mlflow.db
export MLFLOW_BACKEND_STORE_URI ?= $(MLFLOW_TRACKING_URI)
export MLFLOW_EXPERIMENT_NAME ?= doctogres
export MLFLOW_DISABLE_TELEMETRY ?= true
export DO_NOT_TRACK ?= true
export MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR ?= false
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION ?= false
PORT ?= 5001
APP_PORT ?= 8501
DATA ?= data/demo
MODEL ?= doctogres
OFFLINE ?= build/offline
DEVICE ?= cpu
OLDER_THAN ?= 0
SLIDE ?= data/demo/test_data/img_0000.png
MASK ?= $(if $(filter file,$(origin SLIDE)),data/demo/test_data/mask_0000.png)

.PHONY: demo test quick doctor docs lint ui serve app bench setup store telemetry pins reference request offline clean-cache audit coverage release
setup: .venv/.done store ## create the environment in .venv, and the tracking store

store: .venv/.done ## create the tracking store (a SQLite file) if there is none, so that commands may start at the same time
	@$(BIN)/python -m entrypoints.store

.venv/.done: requirements.txt requirements-app.txt requirements-dev.txt entrypoints/telemetry.pth
	@$(PYTHON3) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "Python 3.11 is required, but this is " + sys.version + "; set PYTHON3=/path/to/python3.11")'
	$(PYTHON3) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep -o '^uv==[^ ]*' requirements.txt)
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.txt -r requirements-app.txt -r requirements-dev.txt
	@$(MAKE) --no-print-directory telemetry
	@touch $@

telemetry: # Python reads this file before anything is imported: `mlflow` in .venv sends no usage statistics
	cp entrypoints/telemetry.pth "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

demo: setup ## make the demo's synthetic cohort, run `mlflow run .` on it, print the next steps
	$(BIN)/python -m entrypoints.demo_data
	$(BIN)/mlflow run . --env-manager local -P model_name=doctogres-demo

test: setup lint ## run all tests, the fast ones first
	$(BIN)/python -m pytest -n auto --maxprocesses 8 -m "not slow"
	$(BIN)/python -m pytest -n auto --maxprocesses 2 --dist loadfile -m slow

quick: setup ## lint and the fast tests affected by changes since main, in half a minute
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/python -m tests.quick

doctor: setup ## whether this machine has what doctogres needs, and what to do where it has not
	@PYTHONPATH=src $(BIN)/python -m doctogres.doctor

docs: setup ## build the documents as a site that needs no network
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "Open in a browser:  file://$(CURDIR)/build/site/index.html"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

ui: setup ## start the tracking UI on http://127.0.0.1:5000
	@$(BIN)/python -m entrypoints.ui
	$(BIN)/mlflow ui

serve: setup ## serve the champion on http://127.0.0.1:$(PORT)/invocations; MODEL=doctogres-demo for that of `make demo`
	@echo "After 'Application startup complete', in another terminal:  make request"
	$(BIN)/mlflow models serve --model-uri models:/$(MODEL)@champion --env-manager local --port $(PORT) --timeout 600

offline: setup ## collect the champion and all packages in OFFLINE=build/offline, for a machine without a network; TORCH_CPU=ADDRESS or DEVICE=gpu
	TORCH_CPU=$(TORCH_CPU) container/offline $(OFFLINE) models:/$(MODEL)@champion $(DEVICE)

request: setup ## classify a demo test slide with `make serve`; SLIDE=FILE MASK=FILE for another
	PYTHONPATH=src $(BIN)/python -m doctogres.client $(SLIDE) $(MASK) --url http://127.0.0.1:$(PORT)

app: setup ## start a web page on http://127.0.0.1:$(APP_PORT) that classifies slides with `make serve`
	PYTHONPATH=src $(BIN)/python -m doctogres.app --url http://127.0.0.1:$(PORT) --port $(APP_PORT) --timeout 600

bench: setup ## benchmark cleaning and patch extraction against bare decoding, and training; DATA=FOLDER for another cohort
	$(BIN)/python -m benchmarks.cleaning $(DATA)
	$(BIN)/python -m benchmarks.training

clean-cache: setup ## remove from the workspace what is made again when needed (docs/storage.md); OLDER_THAN=DAYS
	@$(BIN)/python -m entrypoints.clean_cache --older-than $(OLDER_THAN)

coverage: setup ## branch coverage of src/doctogres by all tests, those in other processes included; twice the time of make test
	@mkdir -p build/coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -n auto --maxprocesses 8 -m "not slow"
	$(BIN)/coverage run -m pytest -q -n auto --maxprocesses 2 --dist loadfile -m slow
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

audit: setup ## licences of the packages that users install, and their known vulnerabilities (asks the package index)
	@$(BIN)/python -m entrypoints.licences
	$(BIN)/uv tool run --quiet --from pip-audit==2.10.1 pip-audit --strict --disable-pip --no-deps -r requirements.txt -r requirements-app.txt

release: setup ## VERSION=1.2.0: changelog, wheel and bill of materials in dist/, commit and tag; pushes nothing
	@$(BIN)/python -m entrypoints.release $(VERSION)

pins: ## pin exact versions of the dependencies in pyproject.toml
	uv pip compile --quiet --upgrade pyproject.toml $(PINS) -o requirements.txt
	uv pip compile --quiet pyproject.toml --extra app -c requirements.txt $(PINS) -o requirements-all.tmp
	grep -vxFf requirements.txt requirements-all.tmp | sed -n '/^[a-z]/p' > requirements-app.txt; rm requirements-all.tmp
	uv pip compile --quiet pyproject.toml --extra app --extra signing --extra wsi --extra s3 --extra export --extra dev -c requirements.txt -c requirements-app.txt $(PINS) -o requirements-all.tmp
	grep -vxF -f requirements.txt -f requirements-app.txt requirements-all.tmp | sed -n '/^[a-z]/p' > requirements-dev.txt; rm requirements-all.tmp

reference: setup ## write MLproject and docs/parameters.md from the commands' options
	$(BIN)/python -m entrypoints.reference
