# Every target makes .venv when it is missing and installs the project into it; needs Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo demo-robot test soak lint install clean

install: $(STAMP)

# torch goes first: another package's open range would otherwise pull a CUDA build of several GB.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "torch>=2.6,<2.14"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[teacher,sim,dev]"
	touch $(STAMP)

# Real ARC-AGI tasks -> stand-in teacher -> features -> Vision module -> report.
DEMO := runs/demo
demo: $(STAMP)
	$(BIN)/python -m teacher_torch.posttrain --task arc --preset demo --out $(DEMO)/teacher --resume
	$(BIN)/python -m teacher_torch.extract --teacher $(DEMO)/teacher --out $(DEMO)/store
	$(BIN)/python -m train.main --stage components --component vision --store $(DEMO)/store --out $(DEMO)/vision \
		--preset standin --steps 500 --eval-every 125 $$(test ! -e $(DEMO)/vision/config.json || echo --resume)
	$(BIN)/python -m eval.benchmark --run $(DEMO)/vision --store $(DEMO)/store --teacher $(DEMO)/teacher \
		--out $(DEMO)/report --quick

# Demonstrations -> features of the robot stand-in (train it first: python -m teacher_torch.posttrain --task robot) ->
# student -> success table and videos. A second call goes on where one stopped.
ROBOT := runs/demo-robot
TASKS := button-press-topdown drawer-close drawer-open faucet-open faucet-close
demo-robot: $(STAMP)
	$(BIN)/python -m bridge.demonstrations --out $(ROBOT)/data --tasks $(TASKS) --episodes 24 --validation 4
	$(BIN)/python -m teacher_torch.extract --task robot --teacher standin-robot --dataset $(ROBOT)/data --out $(ROBOT)/store
	$(BIN)/python -m train.main --stage end-to-end --store $(ROBOT)/store --out $(ROBOT)/student --preset standin \
		--steps 500 --eval-every 125 $$(test ! -e $(ROBOT)/student/config.json || echo --resume)
	$(BIN)/python -m eval.benchmark --suite metaworld --run $(ROBOT)/student --store $(ROBOT)/store \
		--teacher standin-robot --tasks $(TASKS) --out $(ROBOT)/report --quick --resume

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
