# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A new method in a few lines of YAML
#
# The systems of the field differ in who may read whom, and in how the noise levels ("clocks") of video and action are tied
# while training. Both are tables here. This notebook writes a table of its own, trains it for a minute beside the usual one,
# and compares the two, with the noise of such a comparison laid beside it.

# %% tags=["parameters"]
data = "runs/notebooks/metaworld"  # episodes to train on; where there are none, a few are collected, in under a minute
steps = 80  # of each training: under a minute on two cores
windows = 64  # held-out windows to compare on
scratch = "runs/notebooks/method"  # where the runs go

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import yaml

import wam
from wam.evaluation.evaluate import CONDITIONALS, held_out_windows
from wam.evaluation.runners import GateSettings, evaluate_gates
from wam.explore.few import few_episodes
from wam.files import write_bytes
from wam.model.visibility import table_from
from wam.settings import load_settings
from wam.training.config import TrainConfig
from wam.training.trainer import train
from wam.visualization.images import enlarge
from wam.visualization.notebook import show

if Path.cwd().name == "notebooks":
    os.chdir("..")
few_episodes(data)

# %% [markdown]
# ## The idea
#
# In the usual table (`joint`) future frames read the action's tokens and are also *modulated* by a summary of the action; the
# action reads the future. The new one says:
#
# - the future reads no action at all: it is told of it by modulation alone,
# - the action reads the future, but *detached*: learning to act does not bend what the frames are,
# - where both are noised, they share one clock, as in UVA, instead of one each.
#
# That is the whole method. A row that is named replaces the preset's; all else stays.

# %%
METHOD = """
model:
  visibility:
    extends: joint
    sees:
      future: {text: yes, observation: yes, state: yes, future: yes}
      action: {text: yes, observation: yes, state: yes, future: detached, action: yes}
  conditionals:
    - {name: policy, weight: 1.0, play: 0.05, loss_scale: 6.0, clocks: {action: draw, future: dropped}}
    - {name: forward_dynamics, weight: 0.35, play: 0.43, clocks: {action: clean, future: draw}}
    - {name: inverse_dynamics, weight: 0.3, play: 0.53, loss_scale: 2.5, hide: {velocity: 0.9}, clocks: {action: draw, future: clean}}
    - {name: imagine, weight: 0.2, play: 0.01, clocks: {action: noise, future: draw}}
    - {name: joint, weight: 0.15, play: 0.03, clocks: {action: shared, future: shared}}
"""

# %% [markdown]
# ## The tables, drawn
#
# A row reads a column where the cell is filled: dark by attention, light by attention without gradient, a dot where the
# column modulates the row.

# %%
STREAMS = ("text", "observation", "state", "velocity", "future", "action")
tables = {"joint": table_from("joint"), "ours": table_from(yaml.safe_load(METHOD)["model"]["visibility"])}
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6))
for axis, (name, table) in zip(axes, tables.items(), strict=True):
    shade = {"yes": 1.0, "detached": 0.45, "no": 0.0}
    sight = [[shade[table.sees.get(row, {}).get(column, "no")] for column in STREAMS] for row in STREAMS]
    axis.imshow(sight, cmap="Blues", vmin=0, vmax=1.4)
    for y, row in enumerate(STREAMS):
        for x, column in enumerate(STREAMS):
            if column in table.modulators(row, STREAMS):
                axis.plot(x, y, "o", color="#e08a1e", markersize=6)
    axis.set_xticks(range(len(STREAMS)), STREAMS, rotation=45, ha="right")
    axis.set_yticks(range(len(STREAMS)), STREAMS)
    axis.set_title(name)
figure.tight_layout()
plt.show()

# %% [markdown]
# Whether a table keeps a promise is computed, not hoped: can anything of the one stream reach the other, through any number
# of layers?

# %%
for name, table in tables.items():
    for source, target in (("action", "future"), ("future", "action")):
        print(
            f"{name:>6}: the {source} {'reaches' if table.reaches(source, target, STREAMS) else 'never reaches'} the {target}"
        )

# %% [markdown]
# ## Training
#
# Three runs on the same few episodes, with as many steps each: the usual table twice, from two seeds, and ours. The second
# seed is there because without it nobody could say whether a difference is one of methods.

# %%
COMMON = f"""
extends: {os.path.relpath("configs/zoo/base.yaml", scratch)}
steps: {steps}
batch_size: 32
tracker: none
save_every: 25
check_every: 0
data:
  parts: [{{root: {data}, name: few, play_share: 0.5}}]
"""
runs = {"joint, seed 0": ("", 0), "joint, seed 1": ("", 1), "ours, seed 0": (METHOD, 0)}
for name, (method, seed) in runs.items():
    place = Path(scratch, name.replace(", ", "-").replace(" ", "-"))
    write_bytes(place.with_suffix(".yaml"), (COMMON + method).encode())
    config = load_settings(TrainConfig, place.with_suffix(".yaml"), [f"output={place}", f"seed={seed}"])
    done = train(config)
    print(f"{name}: {done.steps} steps, in {place}")

# %% [markdown]
# ## What came of it
#
# Four figures on held-out windows, the same for all: does the imagined future depend on the action (1: not at all), how far is
# it above copying the present (with the true action, and without any), and how much better does the model know the action when
# it sees the future.

# %%
models = {name: wam.load(Path(scratch, name.replace(", ", "-").replace(" ", "-"))) for name in runs}
play, expert = (held_out_windows(config, play=kind, count=windows) for kind in (True, False))
settings = GateSettings(steps=(1,), conditionals=CONDITIONALS)
figures = {}
for name, model in models.items():
    gates = evaluate_gates(model.model, play=play, expert=expert, space=model.model.action_space, settings=settings)
    figures[name] = {gate.name: gate.value for gate in gates}
gates = list(next(iter(figures.values())))
print(f"{'n = ' + str(play.size) + ' windows':>20}" + "".join(f"{name:>16}" for name in figures))
for gate in gates:
    print(f"{gate:>20}" + "".join(f"{values[gate]:16.2f}" for values in figures.values()))

# %%
figure, axes = plt.subplots(1, len(gates), figsize=(2.4 * len(gates), 2.4))
for axis, gate in zip(axes, gates, strict=True):
    axis.bar(range(3), [values[gate] for values in figures.values()], color=["#2a78d6", "#7fb0ea", "#e08a1e"])
    axis.set_xticks(range(3), ["joint", "joint\nseed 1", "ours"], fontsize=8)
    axis.set_title(gate, fontsize=9)
    axis.axhline(1.0 if gate == "action_sensitivity" else 0.0, color="black", linewidth=0.8, linestyle=":")
figure.tight_layout()
plt.show()

# %% [markdown]
# Dotted: what a model would have that ignores actions, or copies. A difference between methods that is not several times the
# one between two seeds says nothing:

# %%
a, b, ours = (np.array(list(values.values())) for values in figures.values())
for gate, seeds, methods in zip(gates, abs(a - b), ours - (a + b) / 2, strict=True):
    print(f"{gate:>20}: ours {methods:+.2f} beside the mean of joint, whose two seeds differ by {seeds:.2f}")

# %% [markdown]
# ## Seen
#
# The same start under the same two actions, imagined by each model: standing still, and a push along x.

# %%
now = models["ours, seed 0"].start(0.5, play=True)
rows = []
for name, model in models.items():
    told = {"still": model.push(now), "pushed": model.push(now, x=0.8)}
    found = model.imagine(now, actions=told, steps=1)
    rows.append((name, [enlarge(view, 2) for view in [now.present[0], *found.pictures[:, 0, -1]]]))
truth = now.simulated(np.stack(list(told.values())), found.offsets)
if truth is not None:
    rows.append(("simulator", [enlarge(view, 2) for view in [now.present[0], *truth.frames[:, 0, -1]]]))
show(rows, ["now", f"still, +{found.seconds[-1]:.1f} s", f"pushed, +{found.seconds[-1]:.1f} s"], width=1.8)

# %% [markdown]
# ## What to make of it
#
# Very little, and that is the point of the second seed. A minute on a few dozen episodes says that the table is sound, that the
# losses fall and that no figure collapses. Which method is better takes the demo's data, more than one seed of both, and the
# closed loop:
#
# ```bash
# wam train method.yaml output=runs/method-0 seed=0      # and 1, 2; the same of configs/zoo/base.yaml
# wam eval runs/method-0 --config configs/eval/demo.yaml
# ```
#
# `configs/zoo` has a dozen published systems written in this way.
