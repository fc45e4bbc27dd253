# Every target makes .venv when it is missing and installs the project into it; needs Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo demo-arc robot robot-full sage families arc size standin-robot test soak lint install clean

install: $(STAMP)

# torch goes first: another package's open range would otherwise pull a CUDA build of several GB.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "torch>=2.6,<2.14"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[teacher,sim,dev]"
	touch $(STAMP)

# Demonstrations -> features of the shipped stand-in -> student -> success table and videos. A second call goes on.
ROBOT := runs/demo
FAST := --optimiser muon --lr 8e-3
TASKS := button-press drawer-close drawer-open faucet-open faucet-close
demo: $(STAMP)
	$(BIN)/python -m bridge.demonstrations --out $(ROBOT)/data --tasks $(TASKS) --episodes 24 --validation 4 --test 4
	$(BIN)/python -m teacher_torch.extract --task robot --teacher standin-robot --dataset $(ROBOT)/data --out $(ROBOT)/store
	$(BIN)/python -m train.main --stage end-to-end --store $(ROBOT)/store --out $(ROBOT)/student --preset standin \
		$(FAST) --steps 400 --eval-every 100 --loss.objects 0 $$(test ! -e $(ROBOT)/student/config.json || echo --resume)
	$(BIN)/python -m eval.benchmark --suite metaworld --run $(ROBOT)/student --store $(ROBOT)/store \
		--teacher standin-robot --tasks $(TASKS) --out $(ROBOT)/report --quick --resume

# Real ARC-AGI tasks -> stand-in teacher -> features -> Vision module -> report.
ARC := runs/demo-arc
demo-arc: $(STAMP)
	$(BIN)/python -m teacher_torch.posttrain --task arc --preset demo --out $(ARC)/teacher --resume
	$(BIN)/python -m teacher_torch.extract --teacher $(ARC)/teacher --out $(ARC)/store
	$(BIN)/python -m train.main --stage components --component vision --store $(ARC)/store --out $(ARC)/vision \
		--preset standin --steps 500 --eval-every 125 $$(test ! -e $(ARC)/vision/config.json || echo --resume)
	$(BIN)/python -m eval.benchmark --run $(ARC)/vision --store $(ARC)/store --teacher $(ARC)/teacher \
		--out $(ARC)/report --quick

# The robot in full, from the shipped stand-in to the report: the student, and the same student from demonstrations alone.
DATA := runs/datasets/metaworld
STORE := runs/features/metaworld
ALONE := --loss.tokens 0 --loss.cosine 0 --loss.attention 0 --loss.rise 0 --loss.fused 0 --loss.fused-cosine 0 \
	--loss.text 0 --loss.actions 0 --loss.imitation 0
E2E := $(BIN)/python -m train.main --stage end-to-end --preset standin --store $(STORE) $(FAST) --steps 1500 --eval-every 300 --patience 0
robot: $(STAMP)
	$(BIN)/python -m bridge.demonstrations --out $(DATA)
	$(BIN)/python -m teacher_torch.extract --task robot --teacher standin-robot --dataset $(DATA) --out $(STORE)
	$(E2E) --out runs/student-0 --loss.objects 0 $$(test ! -e runs/student-0/config.json || echo --resume)
	$(E2E) --out runs/alone-0 --loss.objects 0 $(ALONE) $$(test ! -e runs/alone-0/config.json || echo --resume)
	$(BIN)/python -m eval.benchmark --suite metaworld --run runs/student-0 --control demonstrations=runs/alone-0 \
		--store $(STORE) --teacher standin-robot --out runs/report-robot --resume

# The orchestrator on top of those students, first alone, then with everything; then what it is worth. Resumable.
SAGE := $(BIN)/python -m train.main --preset standin --store $(STORE) --optimiser muon --eval-every 100 --patience 0 --loss.objects 0
sage: $(STAMP)
	for seed in $(SEEDS); do \
		$(SAGE) --stage orchestration --steps 300 --lr 8e-3 --init runs/student-$$seed --out runs/h-$$seed --seed $$seed \
			$$(test ! -e runs/h-$$seed/config.json || echo --resume) || exit 1; \
		$(SAGE) --stage end-to-end --steps 800 --lr 4e-3 --init runs/h-$$seed --out runs/sage-$$seed --seed $$seed \
			$$(test ! -e runs/sage-$$seed/config.json || echo --resume) || exit 1; done
	$(BIN)/python -m eval.benchmark --suite sage $(foreach seed,$(SEEDS),--run runs/sage-$(seed)) \
		--store $(STORE) --price 0.45 --out runs/report-sage --resume
	$(BIN)/python -m eval.explain --run runs/sage-0 --task faucet-open --condition covered --price 0.45 --out runs/explain

# The whole table: three seeds, every control, every condition. Hours; a second call goes on where one stopped.
SEEDS := 0 1 2
TOKENS := --loss.fused 0 --loss.fused-cosine 0 --loss.text 0 --loss.actions 0 --loss.imitation 0
ACTIONS := --loss.tokens 0 --loss.cosine 0 --loss.attention 0 --loss.rise 0 --loss.fused 0 --loss.fused-cosine 0 \
	--loss.text 0 --loss.demonstration 0
robot-full: robot
	for seed in $(SEEDS); do for part in "student" "alone $(ALONE)" "tokens $(TOKENS)" "actions $(ACTIONS)"; do \
		set -- $$part; out=runs/$$1-$$seed; shift; \
		$(E2E) --seed $$seed --out $$out --loss.objects 0 "$$@" $$(test ! -e $$out/config.json || echo --resume) || exit 1; \
	done; done
	$(BIN)/python -m eval.benchmark --suite metaworld $(SEEDS:%=--run runs/student-%) --store $(STORE) \
		--control demonstrations=$$(echo $(SEEDS:%=runs/alone-%) | tr ' ' ',') \
		--control demonstrations+tokens=$$(echo $(SEEDS:%=runs/tokens-%) | tr ' ' ',') \
		--control actions=$$(echo $(SEEDS:%=runs/actions-%) | tr ' ' ',') \
		--teacher standin-robot --out runs/report-robot --resume --full

# Small puzzles whose rule must be read from the demonstrations: half an hour on two cores, no teacher.
families: $(STAMP)
	$(BIN)/python -m train.main --stage end-to-end --store families --preset standin $(FAST) --steps 2200 --eval-every 275 \
		--patience 0 --out runs/families $$(test ! -e runs/families/config.json || echo --resume)
	$(BIN)/python -m eval.benchmark --run runs/families --out runs/report-families

# ARC-AGI: the student whose vision the teacher taught, the same without it at equal compute, the original student with
# each of its mistakes made again; then the evaluation tasks of ARC-AGI-1 and -2. Two hours on two cores; resumable.
TOKENS_ARC := runs/features/standin-arc-arc1
CELLS := $(BIN)/python -m train.main --store $(TOKENS_ARC) --preset cells --patience 0 --share-every 0 --host-devices 1
GRIDS := --stage end-to-end --batch 8 --eval-every 100
ORIGINAL := $(BIN)/python -m train.main --store $(TOKENS_ARC) --stage end-to-end --preset standin --baseline seed \
	--patience 0 --share-every 0 --batch 16 --steps 120 --eval-every 60 --eval-frames 64
go_on = $$(test ! -e $(1)/config.json || echo --resume)
arc: $(STAMP)
	$(BIN)/python -m teacher_torch.posttrain --task arc --resume
	$(BIN)/python -m teacher_torch.extract --teacher standin-arc --out $(TOKENS_ARC)
	for s in $(SEEDS); do \
		$(CELLS) --stage components --component vision --steps 400 --eval-every 200 --seed $$s --out runs/arc/vision-$$s \
			$(call go_on,runs/arc/vision-$$s) || exit 1; \
		$(CELLS) $(GRIDS) --steps 300 --init runs/arc/vision-$$s --seed $$s --out runs/arc/taught-$$s \
			$(call go_on,runs/arc/taught-$$s) || exit 1; \
		$(CELLS) $(GRIDS) --steps 386 --seed $$s --out runs/arc/alone-$$s $(call go_on,runs/arc/alone-$$s) || exit 1; done
	for part in repaired "padding --mistakes padding" "sums --mistakes sums" "projector --mistakes projector" \
			"original --mistakes padding sums projector"; do \
		set -- $$part; out=runs/arc/seed-$$1; shift; $(ORIGINAL) --out $$out "$$@" $(call go_on,$$out) || exit 1; done
	$(BIN)/python -m eval.benchmark $(SEEDS:%=--run runs/arc/taught-%) --store $(TOKENS_ARC) --teacher standin-arc \
		--control alone=$$(echo $(SEEDS:%=runs/arc/alone-%) | tr ' ' ',') --control seed=runs/arc/seed-repaired \
		$(foreach part,padding sums projector original,--control seed_$(part)=runs/arc/seed-$(part)) \
		--out runs/report-arc
	$(BIN)/python -m eval.explain --run runs/arc/taught-0 --task 007bbfb7 --out runs/explain-arc

# What the student costs against the 2.7 B teacher and against itself in PyTorch: a quarter of an hour, 24 GB of memory.
size: $(STAMP)
	$(BIN)/python -m eval.benchmark --suite size --quick --seconds 25 --compile yes --out runs/report-size --resume

# How the shipped robot stand-in was made, again from nothing: two hours on two idle cores.
TEACHERS := runs/teachers
standin-robot: $(STAMP)
	$(BIN)/python -m bridge.demonstrations --out $(DATA)
	$(BIN)/python -m teacher_torch.posttrain --task robot --dataset $(DATA) --out $(TEACHERS)/standin-robot-first --resume
	$(BIN)/python -m teacher_torch.posttrain --task robot --dataset $(DATA) --teacher $(TEACHERS)/standin-robot-first \
		--tune.llm --tune.visual --preset full --vision-steps 0 --steps 4000 --learning-rate 7e-4 \
		--out $(TEACHERS)/standin-robot --resume

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
