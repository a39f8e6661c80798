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
# # Latent actions: what happens between two frames, in a few codes
#
# Video of people has no recorded actions. A latent-action tokenizer makes some up: it looks at two frames and says in a
# few codes what happened between them, so that a decoder can make the second frame from the first and the codes. This
# notebook looks at the tokenizer that is shipped in `tokenizers/latent_action`: its codes on real clips of people, what
# can be read from them, what they do when they are changed, and whether a person's codes move a robot.
#
# `WAM_DATA` names a folder of clips of people. Where there is none, a robot's episodes stand in for them; pictures made from
# other people's clips are not kept in the repository, so run the notebook to see them.

# %% tags=["parameters"]
path = "tokenizers/latent_action"  # a saved tokenizer, or a run of stage=latent-action
episodes = (
    "runs/notebooks/metaworld"  # simulator episodes; where there are none, a few are collected, in under a minute
)
clips = ""  # real clips, with human_video/ and robot/phantom_pairs/ in it; empty: WAM_DATA, else ../shared/data

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from wam.data.convert.frames import cover, read_video
from wam.data.store import EpisodeStore
from wam.data.video import probe
from wam.evaluation.latent_action import probes
from wam.evaluation.latent_action.config import PairsConfig
from wam.evaluation.latent_action.driving import foreseen, swapped
from wam.evaluation.latent_action.pictures import latent_walk, swap_strip, transfer_strip
from wam.evaluation.latent_action.readings import encoded, episodes_of, read
from wam.evaluation.latent_action.transfer import aligned_pairs, transfer
from wam.explore.few import few_episodes
from wam.tokenizers.latent_action import LatentActionTokenizer
from wam.visualization.notebook import show

if Path.cwd().name == "notebooks":
    os.chdir("..")
torch.set_num_threads(1)
tokenizer = LatentActionTokenizer.from_pretrained(path)
store = EpisodeStore(few_episodes(episodes))
data = Path(clips or os.environ.get("WAM_DATA", "../shared/data"))
people = sorted((data / "human_video").glob("*.mp4"))
gap = float(tokenizer.provenance["gap_seconds"])
size = tokenizer.config.image_size
levels = tokenizer.config.quantizer.levels
print(f"{sum(p.numel() for p in tokenizer.parameters()) / 1e6:.1f}M parameters; two frames {gap:.2f} s apart become")
print(f"{tokenizer.config.tokens} codes of {np.prod(levels)} each; views: {', '.join(tokenizer.cameras)}")
print(f"{len(people)} clips of people" if people else "no clips of people here: the robot's episodes stand in for them")

# %% [markdown]
# ## Codes of a clip
#
# A clip of a person sweeping with a brush, of a scene that training did not see (or an episode of the robot, from the side).
# Over each pair of frames stand its codes. Below: the decoder's next frame from the present and these codes, and from the
# codes of another moment.

# %% tags=["third-party"]
slot = tokenizer.cameras.index(
    "video" if people else "side"
)  # a camera has its own slot; clips of any one go to `video`
there = np.arange(len(tokenizer.cameras)) == slot


def clip_of(source):
    """Frames (T, H, W, 3) and frames a second: of a video file, or of an episode's number."""
    if isinstance(source, Path):
        return read_video(source), probe(source).fps
    episode = store.episode(source)
    return store.frames("side", episode, range(episode.length)), store.info.fps


def windows_of(source):
    """(N, V, 2, H, W, 3): every pair of frames a gap apart, starting each half gap."""
    frames, fps = clip_of(source)
    frames = np.stack([cover(frame, (size, size)) for frame in frames])
    ahead = max(1, round(gap * fps))
    starts = np.arange(0, len(frames) - ahead, max(1, ahead // 2))
    found = np.zeros((len(starts), len(tokenizer.cameras), 2, size, size, 3), np.uint8)
    found[:, slot] = np.stack([frames[starts], frames[starts + ahead]], axis=1)
    return found


pairs = windows_of(data / "human_video" / "phantom__sweep_02.mp4" if people else 0)
latents, codes, camera = encoded(tokenizer, pairs, there)
numbers = codes @ np.cumprod([1, *levels[:-1]])  # one number for each latent's four digits
shown = np.linspace(0, len(pairs) - 1, 8).astype(int)
own = foreseen(tokenizer, pairs[:, :, 0], latents, there, camera=camera)[:, slot]
other = foreseen(tokenizer, pairs[:, :, 0], np.roll(latents, len(pairs) // 2, 0), there, camera=camera)[:, slot]
show(
    [
        ("present", pairs[shown, slot, 0]),
        ("what came", pairs[shown, slot, 1]),
        ("own codes", own[shown]),
        ("other codes", other[shown]),
    ],
    [" ".join(map(str, row)) for row in numbers[shown]],
)
moved = np.abs(pairs[:, slot, 1].astype(int) - pairs[:, slot, 0]).max(-1) > 12
error = {
    word: np.square((frames - pairs[:, slot, 1] / 255)[moved]).mean()
    for word, frames in {"own": own, "other": other, "copy": pairs[:, slot, 0] / 255}.items()
}
print(f"squared error where something changed: own codes {error['own']:.4f}, another moment's {error['other']:.4f},")
print(f"copying the present {error['copy']:.4f}  (one clip, n = {len(pairs)} pairs)")

# %% [markdown]
# ## How codes are used
#
# A tokenizer that collapses says the same code whatever happens. Here all clips, one code after the other, by how often it is
# said. (Clips of people include those it was trained on.)

# %%
counts = np.zeros(int(np.prod(levels)), int)
for clip in people or range(len(store)):
    said = encoded(tokenizer, windows_of(clip), there)[1] @ np.cumprod([1, *levels[:-1]])
    counts += np.bincount(said.reshape(-1), minlength=len(counts))
share = counts / counts.sum()
perplexity = np.exp(-(share[share > 0] * np.log(share[share > 0])).sum())
figure, axis = plt.subplots(figsize=(7, 2))
axis.bar(np.arange(len(share)), np.sort(share)[::-1], width=1.0)
axis.axhline(1 / len(share), color="black", linewidth=0.8, linestyle=":")
axis.set(xlabel="codes, most frequent first (dotted: all equally often)", ylabel="share")
figure.tight_layout()
plt.show()
print(
    f"perplexity {perplexity:.0f} of {len(share)} codes ({perplexity / len(share):.2f}), never said: {(counts == 0).sum()}"
)

# %% [markdown]
# ## What can be read from them
#
# In the simulator the hand's true motion is known. It was hidden in training; a linear probe, fitted on training episodes,
# now reads it from the latents of held-out random play. The control is the same probe fitted on shuffled motion; on so few
# episodes it strays from 0 by chance.

# %%
known_episodes, aside = episodes_of(store, held_out=0.3, seed=0)
known = read(tokenizer, store, known_episodes, limit=2000, seed=0)
asked = read(tokenizer, store, aside, limit=1500, seed=1)
known, asked = known[known.play], asked[asked.play]
told = probes.linear_probe(known.latents, known.motion, asked.latents)
control = probes.r2(probes.linear_probe(known.latents, known.motion, asked.latents, seed=0), asked.motion)
figure, axes = plt.subplots(1, len(asked.names), figsize=(2.6 * len(asked.names), 2.6), squeeze=False)
for dim, (axis, name) in enumerate(zip(axes[0], asked.names, strict=True)):
    true, score = asked.motion[:, dim], probes.r2(told, asked.motion)[dim]
    axis.plot(true, told[:, dim], ".", markersize=2, alpha=0.6)
    axis.plot([true.min(), true.max()], [true.min(), true.max()], color="black", linewidth=0.8)
    axis.set(
        title=f"{name}: R² {score:.2f} (shuffled {control[dim]:.2f})", xlabel="true motion, m", ylabel="as read, m"
    )
    axis.title.set_fontsize(9)
figure.tight_layout()
plt.show()
print(f"n = {len(asked)} windows of random play from {len(np.unique(asked.episode))} held-out episodes")

# %% [markdown]
# ## Saying something else
#
# One present under latents along the directions in which they vary most. If latents are actions, something moves.

# %%
walk = latent_walk(tokenizer, asked, "walk")
show(list(zip(walk.rows, walk.frames, strict=True)), ["-2 sd", "-1 sd", "mean", "+1 sd", "+2 sd"])

# %% [markdown]
# What happens in one scene (A), made to happen in another (B):

# %%
driven, frames, _ = swapped(tokenizer, asked, seed=0)
strip = swap_strip(asked, driven, frames, columns=6)
show(list(zip(strip.rows, strip.frames, strict=True)))

# %% [markdown]
# ## From a person to a robot
#
# Clips of people beside clips in which a robot arm was rendered into the same motion, frame by frame. Codes are read from
# the person, and drive the robot's present. No robot clip was ever trained on. A prediction that blurs the arm is nearer to
# the truth than an arm in its old place, so the gain has to be read beside that with codes of another moment.

# %% tags=["third-party"]
if people:
    aligned = aligned_pairs(
        PairsConfig(
            human=str(data / "human_video"),
            robot=str(data / "robot" / "phantom_pairs"),
            clips=["phantom__sweep_02", "phantom__sweep_06", "phantom__sweep_08", "phantom__sweep_11"],
        ),
        seconds=gap,
        size=size,
    )
    carried = transfer(tokenizer, aligned, slot=slot)
    strip = transfer_strip(aligned, carried, columns=8)
    show(list(zip(strip.rows, strip.frames, strict=True)))
    print(f"error of copying over error of the transfer, n = {len(aligned)}: {carried.gain:.2f}")
    print(f"with codes of another moment {carried.shuffled:.2f}, with the robot clip's own {carried.own:.2f}")
else:
    print("without clips of people there is nothing to carry over; the tokenizer's card has the figures")

# %% [markdown]
# ## What this is for
#
# `stage=pretrain` trains a world-action model on video alone, with these latents in the place of actions; `stage=posttrain`
# goes on with few labelled demonstrations (`make few-label` measures what that gains). The
# [tokenizer's card](../tokenizers/latent_action/README.md) holds all figures, with the ones it misses; camera shake, for
# one, is taken for action.
