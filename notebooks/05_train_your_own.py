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
# # Train your own: from a folder of videos to a robot
#
# The whole chain in miniature, on your files: a folder of videos becomes clips, the clips teach a latent-action tokenizer,
# its codes stand in for actions while a world-action model learns from video alone, and a dataset of a robot turns these
# latent actions into the robot's own.
#
# Each training here lasts for well under a minute. That is enough to see that files, shapes and losses are right, before hours
# are spent on it. It is not enough for a model that knows anything; the last cell says what it does know.

# %% tags=["parameters"]
videos = ""  # a folder of your videos; empty: the clips of people under WAM_DATA, else some that the simulator draws
robot = "runs/notebooks/metaworld"  # a LeRobot v3.0 dataset; where there is none, a few episodes are collected
camera = "side"  # the robot's camera to learn from
steps = 100  # of each training
scratch = "runs/notebooks/own"  # where everything goes

# %%
import json
import os
import shlex
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import wam
from wam.cli.main import main
from wam.data.store import EpisodeStore
from wam.data.video import encode_video
from wam.evaluation.evaluate import CONDITIONALS, held_out_windows
from wam.evaluation.runners import GateSettings, evaluate_gates
from wam.explore.few import few_episodes
from wam.files import write_bytes
from wam.training.state import trained_config
from wam.visualization.images import enlarge
from wam.visualization.notebook import show

if Path.cwd().name == "notebooks":
    os.chdir("..")
few_episodes(robot)


def terminal(line, shown=""):
    """The command `wam LINE`, as in a terminal; shown: in its place, where it is long."""
    print(f"$ wam {shown or line}")
    assert main(shlex.split(line)) < 2, "it says above what is wrong"  # 1: a check found something


# %% [markdown]
# ## 1. Your videos
#
# Any folder of mp4 files will do. Where neither yours nor clips of people are at hand, the robot's episodes are written out as
# plain videos and stand in for them.

# %%
folder = Path(videos or Path(os.environ.get("WAM_DATA", "../shared/data")) / "human_video")
files = sorted(folder.glob("*.mp4"))
files = [
    file for file in files if "phantom__sweep" in file.name
] or files  # of the clips of people, one kind is enough here
if not files:
    store = EpisodeStore(robot)
    for number in range(len(store)):
        episode = store.episode(number)
        frames = [enlarge(frame, 2) for frame in store.frames(camera, episode, range(episode.length))]
        write_bytes(Path(scratch, "videos", f"{number:02d}.mp4"), encode_video(frames, fps=store.info.fps))
    files = sorted(Path(scratch, "videos").glob("*.mp4"))
files = files[:12]
print(f"{len(files)} videos of {files[0].parent.name}/")

# %% [markdown]
# ## 2. Clips
#
# `wam data curate` cuts them at scene changes, leaves out what stands still or is blurred, and writes a dataset: ordinary
# LeRobot v3.0, only without actions. Try it on a few files first and read what it left out, and why.

# %%
clips = f"{scratch}/clips"
names = " ".join(shlex.quote(str(file)) for file in files)
options = (
    f"--output {clips} --config configs/data/curate.yaml size=[64,64] min_seconds=0.8 min_moving=0.3 duplicates=mark"
)
terminal(f"data curate {names} {options}", shown=f"data curate VIDEOS {options}")

# %% tags=["third-party"]
store = EpisodeStore(clips)
chosen = np.linspace(0, len(store) - 1, 4).astype(int)
moments = [np.linspace(0, store.episode(i).length - 1, 6).astype(int) for i in chosen]
show([(f"clip {i}", store.frames("video", store.episode(i), at)) for i, at in zip(chosen, moments, strict=True)])

# %% [markdown]
# ## 3. A tokenizer of latent actions
#
# It looks at two frames and has to say in a few codes what happened between them, so that a decoder can make the second from
# the first. `02_latent_actions` shows what a trained one knows.

# %%
own_clips = f"'data.parts=[{{root: {clips}, name: own}}]'"
short = f"steps={steps} batch_size=24 save_every={steps} check_every=0 tracker=none"
terminal(f"train configs/train/latent-action-clips.yaml output={scratch}/tokenizer {own_clips} {short}")

# %% [markdown]
# ## 4. A world-action model from video alone
#
# The same clips again. Where a robot's dataset has actions, these have the tokenizer's codes; the model learns what comes of
# them, and which of them a scene calls for.

# %%
pretrain = "configs/train/pretrain-clips.yaml"
terminal(f"train {pretrain} output={scratch}/pretrain latent_actions={scratch}/tokenizer {own_clips} {short}")

# %% [markdown]
# ## 5. Your robot's dataset
#
# `wam data info` says what a dataset holds. `wam data doctor` looks for what spoils a training without an error: actions that
# come late, axes with the wrong sign, pictures that are upside down.

# %%
terminal(f"data info {robot}")
terminal(f"data doctor {robot} --no-replay")

# %% [markdown]
# ## 6. First the plan
#
# Before a long training, `wam plan` times a few steps of it and says what it will take: memory, hours, and where the time
# goes. With `--gpu h100 --count 8` it reckons for machines that you do not have yet.

# %%
post = (
    f"configs/train/posttrain.yaml output={scratch}/posttrain start.checkpoint={scratch}/pretrain "
    f"'data.parts=[{{root: {robot}, name: robot, play_share: 0.5}}]' data.cameras=[{camera}] model.views=1 {short}"
)
terminal(f"plan {post}")

# %% [markdown]
# ## 7. Post-training
#
# The weights come from step 4. What was the latent actions' part of the model becomes the actions', and only what does not fit
# the robot starts anew; the first line says what.

# %%
terminal(f"train {post}")

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 2.2))
for axis, stage in zip(axes, ("tokenizer", "pretrain", "posttrain"), strict=True):
    rows = [json.loads(line) for line in Path(scratch, stage, "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "loss" in row]
    axis.plot([row["step"] for row in rows], [row["loss"] for row in rows], marker=".")
    axis.set(title=stage, xlabel="step", ylabel="loss", ylim=(0, None))
figure.tight_layout()
plt.show()

# %% [markdown]
# ## What it learned, and what it did not
#
# A held-out episode of random play, and the last imagined frame under pushes in every direction, beside what the simulator
# says of the same pushes.

# %%
model = wam.load(f"{scratch}/posttrain")
now = model.start(0.3, play=True)
model.imagine(now, actions="pushes", steps=1)

# %% [markdown]
# Two figures say it without looking. A model that ignores actions has an `action_sensitivity` of 1; one that only copies the
# present has a `forward_gain_db` of 0.

# %%
trained = trained_config(Path(scratch, "posttrain"))
play, expert = (held_out_windows(trained, play=kind, count=64) for kind in (True, False))
settings = GateSettings(steps=(1,), conditionals=CONDITIONALS)
found = evaluate_gates(model.model, play=play, expert=expert, space=model.model.action_space, settings=settings)
for gate in found:
    print(f"{gate.name:>20} {gate.value:6.2f}   `make demo` has to reach {gate.target:g}; n = {gate.n} windows")

# %% [markdown]
# What such a miniature can not show:
#
# - **whether it will act.** No policy comes of a hundred steps; its success was not even measured here.
# - **whether pretraining helps.** That takes trainings with and without it, several seeds of each and hundreds of starts:
#   `make few-label` does it, and its result is in the README, whichever way it went.
# - **whether your videos fit your robot.** Codes of a dozen clips are noise; a few hundred clips, and a tokenizer at rest
#   (`wam eval latent-action RUN`), are where that question begins.
#
# To go on: the same commands without `steps`, more data, and `start.checkpoint=notebooks/model` where your robot is
# Meta-World's or near it.
