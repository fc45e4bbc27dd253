# Every target makes .venv when it is missing and installs the project into it; needs Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo demo-arc test soak lint install clean

install: $(STAMP)

# torch goes first: another package's open range would otherwise pull a CUDA build of several GB.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "torch>=2.6,<2.14"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[teacher,sim,dev]"
	touch $(STAMP)

# Demonstrations -> shipped stand-in teacher -> features -> student -> success table and videos. A second call goes on
# where one stopped.
DEMO := runs/demo
TASKS := button-press-topdown drawer-close drawer-open faucet-open faucet-close
demo: $(STAMP)
	$(BIN)/python -m bridge.demonstrations --out $(DEMO)/data --tasks $(TASKS) --episodes 24 --validation 4
	$(BIN)/python -m teacher_torch.extract --task robot --teacher standin-robot --dataset $(DEMO)/data --out $(DEMO)/store
	$(BIN)/python -m train.main --stage end-to-end --store $(DEMO)/store --out $(DEMO)/student --preset standin \
		--steps 500 --eval-every 125 $$(test ! -e $(DEMO)/student/config.json || echo --resume)
	$(BIN)/python -m eval.benchmark --suite metaworld --run $(DEMO)/student --store $(DEMO)/store \
		--teacher standin-robot --tasks $(TASKS) --out $(DEMO)/report --quick

# Real ARC-AGI tasks -> stand-in teacher -> features -> Vision module -> report.
ARC := runs/demo-arc
demo-arc: $(STAMP)
	$(BIN)/python -m teacher_torch.posttrain --task arc --preset demo --out $(ARC)/teacher --resume
	$(BIN)/python -m teacher_torch.extract --teacher $(ARC)/teacher --out $(ARC)/store
	$(BIN)/python -m train.main --stage components --component vision --store $(ARC)/store --out $(ARC)/vision \
		--preset standin --steps 500 --eval-every 125 $$(test ! -e $(ARC)/vision/config.json || echo --resume)
	$(BIN)/python -m eval.benchmark --run $(ARC)/vision --store $(ARC)/store --teacher $(ARC)/teacher \
		--out $(ARC)/report --quick

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -m "not soak" -q

soak: $(STAMP)
	$(BIN)/python -m pytest -m soak -v --timeout 3600

lint: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info
