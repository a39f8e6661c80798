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
# frame, of the [model](model/README.md) that lies beside it: ten tasks of Meta-World, learned in under an hour on one core.

# %% tags=["parameters"]
run = "notebooks/model"  # a checkpoint's folder, or a run's, e.g. runs/demo
data = (
    "runs/notebooks/metaworld"  # episodes to start from; where there are none, a few are collected, in under a minute
)
steps = 3  # denoising steps per sample
start = 0.06  # where among the frames to start: 0 is the first, 1 the last

# %%
import os
from pathlib import Path

import torch

import wam
from wam.explore.few import few_episodes

if Path.cwd().name == "notebooks":
    os.chdir("..")
torch.set_num_threads(1)
model = wam.load(run, data=data)
few_episodes(data)
model

# %% [markdown]
# ## The start
#
# A frame of an episode that training never saw, and the sentence that was told. It is picked by its place among all
# frames, not by how well it goes. `model.start` also takes an episode and a frame, a seed of a simulator
# (`environment="metaworld/faucet-open-v3", seed=3`), or what a robot sees.

# %%
now = model.start(start)
now

# %% [markdown]
# ## Many futures without actions
#
# `imagine` is given the picture and the sentence and draws from what may come. Each seed is another sample; the last row
# shows where they differ: where it is dark, the model is sure.

# %%
dreams = model.imagine(now, seeds=4, steps=steps)
dreams

# %% [markdown]
# ## The same start, told something else
#
# At the beginning of the episode, where the sentence decides which way the hand will go: the sentence that was told, one for
# the other way round, and one that has no business in this scene.

# %%
early = model.start(0.01)
model.imagine(early, instruction=[early.instruction, "close the faucet", "open the drawer"], steps=steps)

# %% [markdown]
# ## The same start, under different actions
#
# With actions, `imagine` is forward dynamics. The noise is the same in every column, so whatever differs between columns
# comes from the action; this is the test that a video model which merely continues the usual motion cannot pass. Where the
# data carries the simulator's states, the simulator returns to this very start and carries out the same actions.

# %%
pushed = model.imagine(now, actions="pushes", steps=steps)
pushed

# %%
for name in pushed.names[1:]:
    moved = abs(pushed[name] - pushed["still"]).mean()
    print(f"{name:>4}: differs from standing still by {moved:.4f}, mean over pixels")

# %% [markdown]
# ## Further ahead
#
# A future goes on from what was imagined, chunk by chunk. Any push will do, in the units of the action space; any answer
# is saved as a film strip, an animation, or a recording for the [rerun](https://rerun.io) viewer (`.rrd`).

# %%
far = model.imagine(now, actions={"pushed along x": model.push(now, x=0.5, chunks=4)}, chunks=4, steps=steps)
far.save("runs/notebooks/pushed.mp4")
far

# %% [markdown]
# ## Acting, and reading actions off a video
#
# `policy` wants the chunk, and drops the future without computing it. `inverse_dynamics` is given the frames that came,
# and says which actions lead there. What was really done stands beside both.

# %%
model.policy(now) | model.inverse_dynamics(now)

# %% [markdown]
# `joint` draws both at once: what the model would do, and what it expects to come of it. The simulator carries it out.

# %%
model.joint(now)

# %% [markdown]
# What one start shows is an anecdote. The gates of `wam eval` measure the same on every held-out window:
# `action_sensitivity`, `inverse_r2_gain`, `imagine_gain_db`; the [model's card](model/README.md) has them. To push the arm
# yourself, run `wam explore notebooks/model --data runs/notebooks/metaworld`.
