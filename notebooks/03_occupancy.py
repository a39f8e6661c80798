# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What is where, now and in imagined futures
#
# Beside pictures, a world-action model can say which cells of a grid over the table are filled: at the present, and in the
# future that it imagines for an action. This notebook looks at such grids beside the true ones, asks what other actions
# would do, and lets the grid steer an action.

# %% tags=["parameters"]
run = (
    "notebooks/voxel-model"  # a checkpoint's folder, or a run's; where there is none, that of `make occupancy` is taken
)
data = (
    "runs/notebooks/metaworld"  # episodes to start from; where there are none, a few are collected, in under a minute
)
steps = 1  # denoising steps per sample
start = 0.27  # where among the frames to look: 0 is the first, 1 the last

# %%
import json
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

import wam
from wam.evaluation.voxel_metrics import changed, iou
from wam.explore.few import few_episodes
from wam.geometry.grid import FREE, OCCUPIED, UNKNOWN, VoxelConfig
from wam.geometry.voxels import fuse_depth
from wam.model.steering import Steering
from wam.visualization.notebook import show
from wam.visualization.voxels import draw_voxels

if Path.cwd().name == "notebooks":
    os.chdir("..")
torch.set_num_threads(1)
model = wam.load(run if Path(run).is_dir() else "runs/occupancy", data=data)
grid = model.model.config.occupancy.grid
few_episodes(data, grid=grid)
print(f"a grid of {' x '.join(map(str, grid.shape))} cells of {100 * grid.side:g} cm, from {grid.origin} m")
model

# %% [markdown]
# ## The present
#
# A frame of an episode that training never saw. The true grid is filled from the simulator's own shapes; the model sees
# two small pictures, and where their cameras stand. Colour is height; cells that it fills and that are empty are red.

# %%
now = model.start(start)
truth = (now.batch.occupancy[0] == OCCUPIED).numpy()
print(f"told: {now.instruction!r}")

seen = (
    model.model.sample(now.batch, want=("occupancy",)).occupancy[0, 0] > 0.5
)  # of the present alone: no future is drawn
wrong = seen.numpy() & ~truth[0]
show(
    [("", [*now.present, draw_voxels(truth[0]), draw_voxels(seen.numpy(), wrong=wrong)])],
    [*now.cameras, "true", "predicted"],
    width=2.2,
)
print(f"intersection over union: {iou(seen[None], torch.from_numpy(truth[:1])):.2f}")

# %% [markdown]
# ## The future that follows an action
#
# `forward_dynamics` with the actions that were really taken: frames and grids come from the same features, so the grid
# is one of the imagined frames.

# %%
ahead = model.forward_dynamics(now, steps=steps)
ahead

# %%
last, first = torch.from_numpy(truth[-1:]), torch.from_numpy(truth[:1])
where = changed(last, first)
if where.any():
    ours, copied = iou(torch.from_numpy(ahead.filled[0, -1:]), last, where), iou(first, last, where)
    print(f"where it changes, intersection over union is {ours:.2f}; copying the present gives {copied:.2f}")

# %% [markdown]
# ## The same start, under different actions
#
# Each column is another constant push from the same frame and the same noise. Beneath are the cells, and where there is a
# simulator what it says of the same action; red cells are filled in the model's imagination only.

# %%
told = {"still": model.push(now), "pulled": model.push(now, y=-0.5), "aside": model.push(now, x=0.5)}
model.imagine(now, actions=told, steps=steps)

# %% [markdown]
# ## An action that keeps clear of a place
#
# A cost of the imagined grid steers the policy: how much of a box will be filled? Its gradient reaches the action through
# the world model. The box here is where the model expects to come if nothing keeps it away.

# %%
plain = model.policy(now).actions


def foreseen(action):
    """(1 + T, X, Y, Z): how likely each cell is filled, the present first."""
    return torch.from_numpy(model.imagine(now, actions=action[0], steps=steps).voxels[0])


comes = (foreseen(plain)[-1] > 0.5) & ~seen
box = torch.zeros(grid.shape, dtype=torch.bool)
if comes.any():
    middle = comes.nonzero().float().mean(0).round().int().tolist()
else:
    middle = [count // 2 for count in grid.shape]
box[tuple(slice(max(0, m - 2), m + 3) for m in middle)] = True


def filled(sample):
    """(B,): the mean of the box over the frames to come, more than is filled already."""
    return (sample.occupancy[:, 1:, box].mean((1, 2)) - 0.02).clamp(min=0)


steering = Steering(cost=filled, imagine=True, steps=8, reach=0.2)
careful = model.model.policy(now.batch, steps=4, steering=steering).action.numpy()
heads = ["now", *(f"in {second:.2f} s" for second in ahead.seconds)]
for name, action in (("plain", plain), ("careful", careful)):
    print(f"{name:>8}: {float(foreseen(action)[1:, box].mean()):.3f} of the box is expected to be filled")
show(
    [
        (name, [draw_voxels(c, wrong=c & box.numpy()) for c in (foreseen(action) > 0.5).numpy()])
        for name, action in (("plain", plain), ("careful", careful))
    ],
    heads,
    width=2.2,
)

# %% [markdown]
# ## Depth of a real room
#
# Nothing is learned here: two pictures that a person's glasses took in a kitchen (Aria Digital Twin), their depth and
# where they were taken, fused into voxels of five centimetres. `wam data label --from depth` does the same to a dataset
# with depth. Set `WAM_DATA` to a folder with `rgbd/aria_adt` to see it.

# %% tags=["third-party"]
folder = Path(os.environ.get("WAM_DATA", "../shared/data")) / "rgbd" / "aria_adt"
if folder.is_dir():
    meta = json.loads((folder / "meta.json").read_text())
    k = meta["K"]
    upright = torch.tensor([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])  # its y points up
    poses = []
    for frame in meta["frames"][:2]:
        device = {name.split("_")[0]: value for name, value in frame["world_device"].items()}
        world = torch.eye(4)
        world[:3, :3] = torch.tensor(Rotation.from_quat([device[f"q{axis}"] for axis in "xyzw"]).as_matrix())
        world[:3, 3] = torch.tensor([device[f"t{axis}"] for axis in "xyz"])
        poses.append(upright @ world @ torch.tensor(frame["T_device_camera"], dtype=torch.float32))
    depth = torch.stack(
        [torch.from_numpy(np.asarray(Image.open(folder / f"depth_{i}.png")) / 1000).float() for i in (0, 1)]
    )
    intrinsics = torch.tensor([[k["fx"], 0, k["cx"]], [0, k["fy"], k["cy"]], [0, 0, 1]]).expand(2, 3, 3)
    kitchen = VoxelConfig(shape=[52, 78, 41], origin=[0.36, -4.12, 0.0], side=0.05)
    fused = fuse_depth(depth, intrinsics, torch.stack(poses), kitchen)
    colours = np.asarray(Image.open(folder / "rgb_0.png").resize((256, 256)).rotate(-90))
    away = plt.get_cmap("viridis")(np.rot90(depth[0].numpy(), -1) / 4)[..., :3]
    sides = [draw_voxels((fused == OCCUPIED).numpy(), size=256, turn=angle) for angle in (125, 215)]
    show([("", [colours, away, *sides])], ["seen", "depth (to 4 m)", "voxels", "from another side"], width=2.6)
    names = {"free": FREE, "occupied": OCCUPIED, "unknown": UNKNOWN}
    print(", ".join(f"{name} {(fused == state).float().mean():.0%}" for name, state in names.items()))
else:
    print(f"no {folder}")

# %% [markdown]
# One window is an anecdote. `wam eval occupancy RUN` measures all of the held-out ones, beside copying the present and beside
# true depth fused without learning.
