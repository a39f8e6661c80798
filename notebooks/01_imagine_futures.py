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
# # One start, many futures
#
# A world-action model answers several questions with one set of weights: what will the cameras show, what will they show
# if I do *this*, what should I do, and which actions lead from here to there. This notebook asks all of them from one
# frame. It needs a trained run: `make demo` makes one in `runs/demo`.

# %% tags=["parameters"]
run = "runs/demo"  # a run's folder
steps = 3  # denoising steps per sample
start = 0.1  # where in the held-out windows to start: 0 is the first, 1 the last

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from wam.contracts import expected
from wam.evaluation.evaluate import held_out_windows
from wam.evaluation.pictures import probe_actions
from wam.model.pretrained import from_pretrained
from wam.settings import load_settings
from wam.training.config import TrainConfig
from wam.training.state import last_checkpoint
from wam.visualization.notebook import show

if Path.cwd().name == "notebooks":
    os.chdir("..")
if last_checkpoint(Path(run)) is None:
    raise expected(f"a trained run in {run}", got="none", do="run `make demo`, which makes runs/demo, or set `run`")

torch.set_num_threads(1)
model = from_pretrained(last_checkpoint(Path(run)))
config = load_settings(TrainConfig, Path(run) / "config.yaml")
made = model.provenance
print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}M parameters, step {made['step']}, cameras {model.cameras}")
print("streams:", ", ".join(model.config.streams), "| actions:", ", ".join(model.action_space.names))

# %% [markdown]
# ## The start
#
# A window of an episode that training never saw: the present, the sentence, and the frames and actions that came.
# The window is picked by its place among all held-out ones, not by how well it goes.

# %%
windows = held_out_windows(config, play=False, count=64)
place = round(start * (windows.size - 1))
now = windows[place : place + 1]
print(f"told: {now.instruction[0]!r}")


def frames(video):
    """(V, T, H, W, C) as a row of pictures: all frames of the first camera, then of the next."""
    video = video.float() / 255 if video.dtype == torch.uint8 else video
    return [frame.clamp(0, 1).numpy() for view in video for frame in view]

ahead = [f"{camera} +{offset}" for camera in model.cameras for offset in config.model.future]
show([("now", frames(now.images[0][:, -1:]))], model.cameras)

# %% [markdown]
# ## Many futures without actions
#
# `imagine` is given the picture and the sentence and draws from what may come. Each seed is another sample; where they
# agree, the model is sure. (The numbers over the columns: camera, and how many frames ahead.)

# %%
dreams = torch.cat([model.imagine(now, steps=steps, seed=seed).future for seed in range(4)])
show([("came", frames(now.future[0])), *((f"seed {i}", frames(dream)) for i, dream in enumerate(dreams))], ahead)
print(f"spread between seeds: {dreams.std(0).mean():.4f} of the brightness range, mean over pixels")

# %% [markdown]
# ## The same start, told something else

# %%
sentences = sorted(set(windows.instruction))
told = [now.instruction[0], *(s for s in sentences if s != now.instruction[0])][:4]
others = [model.imagine(now.replace(instruction=(sentence,)), steps=steps).future[0] for sentence in told]
show([(sentence, frames(other)) for sentence, other in zip(told, others, strict=True)], ahead)

# %% [markdown]
# ## The same start, under different actions
#
# `forward_dynamics` is given a chunk of actions too. The noise is the same in every row, so whatever differs between rows
# comes from the action. This is the test that a video model which merely continues the usual motion cannot pass.

# %%
probes = probe_actions(windows, model.action_space)
rows = []
for name, chunk in probes.items():
    pushed = now.replace(
        action=torch.from_numpy(np.asarray(chunk, np.float32))[None],
        action_mask=torch.ones(1, len(chunk), dtype=torch.bool),
    )
    rows.append((name, model.forward_dynamics(pushed, steps=steps).future[0]))
show([(name, frames(future)) for name, future in rows], ahead)
still = rows[0][1]
for name, future in rows[1:]:
    print(f"{name:>4}: differs from standing still by {(future - still).abs().mean():.4f}, mean over pixels")

# %% [markdown]
# ## Acting, and reading actions off a video
#
# `policy` wants the chunk, and drops the future without computing it. `inverse_dynamics` is given the frames that came,
# and says which actions lead there. The expert's own chunk stands beside both.

# %%
names = model.action_space.names
chunks = {
    "expert": now.action[0],
    "policy": model.policy(now, steps=4).action[0],
    "inverse": model.inverse_dynamics(now, steps=4).action[0],
}
figure, axes = plt.subplots(1, len(names), figsize=(2.6 * len(names), 2), sharey=True, squeeze=False)
for dim, (axis, name) in enumerate(zip(axes[0], names, strict=True)):
    for label, chunk in chunks.items():
        axis.plot(chunk[:, dim], label=label, marker=".", linewidth=1)
    axis.set(title=name, xlabel="step of the chunk")
axes[0, 0].legend(fontsize=7)
figure.tight_layout()
plt.show()

# %% [markdown]
# What one window shows is an anecdote. The gates of `wam eval` measure the same on every held-out window:
# `action_sensitivity`, `inverse_r2_gain`, `imagine_gain_db`.
