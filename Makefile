PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export OMP_NUM_THREADS ?= 2
export HF_HUB_OFFLINE ?= 1

.PHONY: setup demo test slow lint bench bench-lerobot test-lerobot test-openpi recipe control-no-future control-cloning control-blind few-label occupancy occupancy-ablation astray guidance student delay notebooks docs readme gpu clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else f"wam needs Python 3.11 to 3.13, this is {sys.version.split()[0]}; run make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[sim,formats,curate,serve,export,adapters,docs,dev]'
	touch $@

demo: setup
	$(BIN)/wam demo

test: setup lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations=10

slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup  # every claim of speed, to runs/bench/; goes on after one that misses its target and fails at the end
	mkdir -p runs/bench
	@missed=; for name in conditionals cache rollout step occupancy loader curate latency fuzz-guard server fuzz-server parity backbone ranks plan explore; do \
	  with=; test $$name = explore && test -d runs/occupancy && with="--run runs/occupancy --threads 2"; \
	  $(BIN)/wam bench $$name $$with --json runs/bench/$$name.json || missed="$$missed $$name"; \
	done; test -z "$$missed" || { echo "missed or broken:$$missed"; exit 1; }

# The 75-minute recipe (one seed at a time) and its controls, which see the same data for the same time.
SEED ?= 0
RECIPE := runs/metaworld-cpu
TRAIN_RECIPE = $(BIN)/wam train configs/train/metaworld-cpu.yaml output=$(RECIPE)
recipe: RECIPE_RUN = seed-$(SEED)
recipe: RECIPE_SETTINGS = seed=$(SEED)
control-no-future: RECIPE_RUN = no-future
control-no-future: RECIPE_SETTINGS = model.streams.future=null 'model.conditionals=[{name: policy, weight: 1.0, clocks: {action: draw}}]'
control-cloning: RECIPE_RUN = cloning
control-cloning: RECIPE_SETTINGS = stage=cloning
control-blind: RECIPE_RUN = blind
control-blind: RECIPE_SETTINGS = model.visibility=action-blind
recipe control-no-future control-cloning control-blind: setup
	$(BIN)/wam collect $(RECIPE)/data --config configs/data/metaworld-cpu.yaml
	$(TRAIN_RECIPE)/$(RECIPE_RUN) $(RECIPE_SETTINGS)
	$(BIN)/wam eval $(RECIPE)/$(RECIPE_RUN) --config configs/eval/metaworld-cpu.yaml

# What pretraining on unlabelled video gains with five labelled demonstrations a task; on the demo's data.
FEW := runs/few-label
few-label: setup
	test -d runs/demo/data || $(BIN)/wam collect runs/demo/data --config configs/data/demo.yaml
	for seed in 0 1 2; do \
	  $(BIN)/wam train configs/train/few-label-pretrain.yaml output=$(FEW)/pretraining-$$seed seed=$$seed && \
	  $(BIN)/wam train configs/train/few-label.yaml output=$(FEW)/pretrained-$$seed seed=$$seed \
	    start.checkpoint=$(FEW)/pretraining-$$seed && \
	  $(BIN)/wam train configs/train/few-label-alone.yaml output=$(FEW)/alone-$$seed seed=$$seed && \
	  $(BIN)/wam eval $(FEW)/pretrained-$$seed --config configs/eval/few-label.yaml && \
	  $(BIN)/wam eval $(FEW)/alone-$$seed --config configs/eval/few-label.yaml || exit 1; \
	done
	$(BIN)/python tools/few_label.py --runs $(FEW)

# Voxels of the demo's tasks: exact labels from the simulator, a model with them, and its figures.
occupancy: setup
	test -d runs/demo/data || $(BIN)/wam collect runs/demo/data --config configs/data/demo.yaml
	$(BIN)/wam data label runs/demo/data
	$(BIN)/wam train configs/train/occupancy.yaml
	$(BIN)/wam eval occupancy runs/occupancy

# With the voxels' loss and without it, three seeds, cameras in place and moved.
ABLATION := runs/occupancy-ablation
occupancy-ablation: setup
	test -d runs/demo/data || $(BIN)/wam collect runs/demo/data --config configs/data/demo.yaml
	$(BIN)/wam data label runs/demo/data
	for seed in 0 1 2; do for side in voxels plain; do \
	  run=$(ABLATION)/$$side-$$seed; \
	  $(BIN)/wam train configs/train/occupancy-ablation.yaml output=$$run seed=$$seed \
	    model.occupancy.loss_weight=$$(test $$side = voxels && echo 1 || echo 0) && \
	  { $(BIN)/wam eval $$run --config configs/eval/demo.yaml episodes=false --json $$run/gates.json || test $$? = 1; } && \
	  for moved in 0 5 10 20; do \
	    $(BIN)/wam eval $$run --config configs/eval/few-label.yaml starts=20 moved=$$moved --json $$run/moved-$$moved.json || exit 1; \
	  done || exit 1; \
	done; done
	$(BIN)/python tools/occupancy_ablation.py --runs $(ABLATION)

# A model of demonstrations that go astray, for the two that follow.
astray: setup
	test -d runs/astray/data || $(BIN)/wam collect runs/astray/data --config configs/data/astray.yaml
	$(BIN)/wam train configs/train/astray.yaml

# Its chunks steered around a box in the hand's way.
guidance: setup
	test -d runs/astray/checkpoints || $(MAKE) astray
	mkdir -p runs/bench
	$(BIN)/wam eval guidance runs/astray --config configs/eval/guidance.yaml --json runs/bench/guidance.json

# Students of the demo's model, three seeds, and their controls: cloned from the demonstrations alone, of all and of five a task.
DISTILLED := runs/distill
student: setup
	for seed in 0 1 2; do \
	  $(BIN)/wam distill configs/distill/demo.yaml train.output=$(DISTILLED)/student-$$seed train.seed=$$seed || exit 1; \
	done
	$(BIN)/wam distill configs/distill/cloned.yaml
	$(BIN)/wam distill configs/distill/cloned.yaml train.output=$(DISTILLED)/cloned-few train.data.parts.0.take=5
	$(BIN)/wam distill configs/distill/demo.yaml train.output=$(DISTILLED)/student-few train.data.parts.0.take=5 \
	  teacher.labels=$(DISTILLED)/labels-few
	mkdir -p runs/bench
	$(BIN)/wam eval student $(DISTILLED)/student-0 --config configs/eval/student.yaml \
	  'seeds=[$(DISTILLED)/student-1,$(DISTILLED)/student-2]' --json runs/bench/student.json

# A student that drove late, on from settled actions, and its success under injected latency: standing still, naive, real-time
# chunking.
delay: setup
	test -d runs/astray/checkpoints || $(MAKE) astray
	mkdir -p runs/bench
	$(BIN)/wam distill configs/distill/late.yaml
	$(BIN)/wam eval delay $(DISTILLED)/late-0 --config configs/eval/delay.yaml --json runs/bench/delay.json

# The real package lerobot, in a Python of its own since it pins older releases of torch and numpy: its dataset class and its
# policies beside ours, and the plugin by which our policies act through it.
LEROBOT_PYTHON ?= python3.12
LEROBOT := .venv-lerobot/bin
PLUGIN := tools/lerobot_policy_wam
bench-lerobot: setup .venv-lerobot/.installed
	mkdir -p runs/bench
	$(BIN)/python tools/bench_lerobot.py --lerobot $(LEROBOT)/python --json runs/bench/lerobot.json
	$(LEROBOT)/python tools/bench_lerobot_act.py --json runs/bench/lerobot-act.json

test-lerobot: .venv-lerobot/.installed
	$(LEROBOT)/python -m pytest -m 'slow or not slow' tests/lerobot

.venv-lerobot/.installed: pyproject.toml $(PLUGIN)/pyproject.toml $(PLUGIN)/constraints.txt
	$(LEROBOT_PYTHON) -m venv .venv-lerobot
	$(LEROBOT)/pip install -q -c $(PLUGIN)/constraints.txt -e . -e '$(PLUGIN)[test]' 'lerobot[dataset,diffusion,smolvla]==0.6.1'
	touch $@

# The real openpi-client, in a Python of its own since it pins numpy below 2, drives episodes against `wam serve`.
test-openpi: setup .venv-openpi/.installed
	mkdir -p runs/bench
	$(BIN)/python tools/check_openpi.py --openpi .venv-openpi/bin/python --run $(RUN) --json runs/bench/openpi.json

.venv-openpi/.installed:
	$(PYTHON) -m venv .venv-openpi
	.venv-openpi/bin/pip install -q 'openpi-client==0.1.2' typing_extensions  # which it imports and does not name
	touch $@

notebooks: setup  # from clean, on the models beside them; what they collect and train goes to runs/notebooks
	rm -rf runs/notebooks
	$(BIN)/python tools/run_notebooks.py --json runs/bench/notebooks.json

docs: setup  # into site/, without network; open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file tools/mkdocs.yml

RUN ?= runs/demo
readme: setup  # pictures of RUN, and the table of results from what is under runs/
	$(BIN)/python tools/readme_pictures.py --run $(RUN)
	$(BIN)/python tools/readme_results.py

gpu: setup  # on an accelerator: tests, MFU, samples/s, latency of a chunk, peak memory; without one it says so and measures nothing
	$(BIN)/python -m pytest -m gpu
	@mkdir -p runs/bench; $(BIN)/wam bench gpu --json runs/bench/gpu.json; status=$$?; \
	  if test $$status = 77; then echo "skipped: no accelerator, no figures"; exit 0; fi; exit $$status

clean:
	rm -rf $(VENV) .venv-lerobot .venv-openpi build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
