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
# # From a world model to a robot
#
# A world-action model knows much and is slow. Here it becomes the teacher of a compact student, which is exported, put behind a
# server, asked by a client, watched by a safety guard, and made to act although its answers come late. All in miniature: two
# tasks, a few dozen episodes, and a minute of training on a laptop.

# %% tags=["parameters"]
teacher = "notebooks/model"  # a checkpoint's folder, or a run's, e.g. runs/demo
data = "runs/notebooks/faucets"  # episodes to learn from; where there are none, a few are collected, in under a minute
steps = 200  # of each student's training: about half a minute on one core
starts = 5  # unseen ones of each task, for every figure below
scratch = "runs/notebooks/students"  # where the students go

# %%
import os
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from wam.control.client import RemotePolicy
from wam.control.executors import make_executor
from wam.control.export import export_student
from wam.control.exported import ExportedPolicy
from wam.control.guard import SafetyGuard
from wam.control.planner import SimulatedPlanner
from wam.control.server.config import ServeConfig
from wam.control.server.running import served_apart
from wam.control.wam_policy import load_policy
from wam.distillation.config import DistillConfig
from wam.distillation.stage import distill
from wam.evaluation.delay import SimulatedClock
from wam.evaluation.student import StudentEvaluateConfig, evaluate, seen_by
from wam.explore.few import few_episodes
from wam.model.student import Student
from wam.settings import load_settings
from wam.simulation.config import CollectConfig
from wam.training.state import newest_checkpoint
from wam.visualization.images import enlarge
from wam.visualization.notebook import show

if Path.cwd().name == "notebooks":
    os.chdir("..")
torch.set_num_threads(1)
tasks = ["metaworld/faucet-open-v3", "metaworld/faucet-close-v3"]
few = CollectConfig(
    environments=tuple(tasks), episodes=8, play_episodes=8, play_steps=64, cameras=("side", "top"), seed=7
)
few_episodes(data, config=few)

# %% [markdown]
# ## A student, and its honest control
#
# The student is a small convolutional network with a chunk head. Its teacher answers every recorded frame once, random
# play included (which is told a task, so that frames no demonstration comes to are taught too), imagines more frames
# and answers those. The control is the same student with the same steps on the demonstrations alone.

# %%
COMMON = [
    f"teacher.run={teacher}",
    f"train.steps={steps}",
    "train.tracker=none",
    "train.threads=1",
    "train.check_every=0",
]
students = {"taught": "configs/distill/demo.yaml", "cloned": "configs/distill/cloned.yaml"}
for name, config in students.items():
    place = [f"train.output={scratch}/{name}", f"train.data.parts.0.root={data}", f"teacher.labels={scratch}/labels"]
    done = distill(load_settings(DistillConfig, Path(config), [*COMMON, *place]))
    print(f"{name}: {done.steps} steps, in {scratch}/{name}")

# %% [markdown]
# ## What does it keep?
#
# All drive from the same starts, which training never saw. `retained` is success over the teacher's. So few episodes and steps are
# not what `wam distill` is for: the README's table has the figure of whole runs, with three seeds and fifty starts a task.

# %%
asked = StudentEvaluateConfig(environments=tasks, starts=starts, controls={"cloned": [f"{scratch}/cloned"]})
found = evaluate(Path(scratch, "taught"), asked, say=lambda _: None)
success = {
    side: found.values[f"success_{key}"]
    for side, key in (("teacher", "teacher"), ("student", "student"), ("cloned alone", "cloned"))
}
figure, axis = plt.subplots(figsize=(5, 1.8))
axis.barh(list(success)[::-1], list(success.values())[::-1], color=["#b9b8b2", "#2a78d6", "#222222"])
axis.set_xlim(0, 1)
axis.set_xlabel(f"success, {len(tasks)} tasks x {starts} unseen starts")
plt.show()

# %% [markdown]
# ## How fast is it?
#
# Exported to ONNX, the student needs no torch. The export is checked against torch on random inputs before it is kept.

# %%
checkpoint = newest_checkpoint(Path(scratch, "taught"))
export = Path(scratch, "taught", "export")
checked = export_student(Student.from_pretrained(checkpoint), export)
print(f"{checked.bytes / 2**20:.1f} MiB; at most {checked.error:.1g} from torch, in units of an action's usual range")

environment = seen_by(checkpoint)(tasks[0], max_steps=200)
seen = environment.reset(0)
policies = {
    "teacher, 10 steps": load_policy(newest_checkpoint(Path(teacher)), steps=10, threads=1),
    "teacher, 1 step": load_policy(newest_checkpoint(Path(teacher)), steps=1, threads=1),
    "student, ONNX": ExportedPolicy(export),
}
spent = {}
for name, policy in policies.items():
    policy.act([seen])
    spent[name] = []
    for _ in range(20):
        begun = time.perf_counter()
        policy.act([seen])
        spent[name].append(1e3 * (time.perf_counter() - begun))
figure, axis = plt.subplots(figsize=(6, 1.8))
axis.barh(list(spent)[::-1], [np.median(times) for times in spent.values()][::-1], color="#2a78d6")
for row, times in enumerate(list(spent.values())[::-1]):
    axis.text(np.median(times), row, f" {np.median(times):.1f} ms", va="center")
axis.set_xscale("log")
axis.set_xlim(0.1, 1000)
axis.set_xlabel("milliseconds for a chunk, one core, median of 20")
plt.show()

# %% [markdown]
# ## Served
#
# `wam serve` puts a policy behind openpi's websocket protocol. Here the server runs in a process of its own, and a client, which
# needs neither torch nor the model, drives an episode. Every command passes the guard on its way to the robot.


# %%
def episode(policy, executor="synchronous", delay_ms=0.0, start=0, task=tasks[0]):
    """One episode in simulated time: what was commanded, which plan it came from, and pictures of it."""
    environment = seen_by(checkpoint)(task, max_steps=120)
    clock = SimulatedClock(1 / environment.action_space.rate_hz)
    planner = SimulatedPlanner(policy, period=clock.period, clock=clock, delay=delay_ms / 1e3)
    ran, guard = make_executor(executor, planner, execute=6), SafetyGuard(environment.action_space, clock=clock)
    environment.reset(start)
    commands, plans, pictures, success = [], [], [], False
    while not success and len(commands) < 120:
        step = ran.tick(lambda: environment.observe())
        verdict = guard.check(step.action, seen_at=step.seen_at, sequence=step.sequence)
        result = environment.step(verdict.action, render=len(commands) % 10 == 0)
        clock.ticks += 1
        if result.observation is not None:
            pictures.append(result.observation.images["side"])
        commands.append(verdict.action)
        plans.append(-1 if step.sequence is None else step.sequence)
        success = bool(result.success)
    return {
        "success": success,
        "commands": np.stack(commands),
        "plans": np.array(plans),
        "pictures": pictures,
        "guard": {reason: n for reason, n in guard.counts.items() if n},
    }


with served_apart(export, ServeConfig(port=0)) as (address, _):
    policy = RemotePolicy(address)
    print(address, {key: policy.metadata[key] for key in ("action_chunk_size",) if key in policy.metadata})
    served = episode(policy)
    policy.close()
print(
    f"{'solved' if served['success'] else 'not solved'} in {len(served['commands'])} ticks; guard: {served['guard'] or 'nothing to do'}"
)
shown = served["pictures"][:8]
show(
    [("served", [enlarge(picture, 2) for picture in shown])],
    [f"{10 * i / 40:.2f} s" for i in range(len(shown))],
    width=1.2,
)

# %% [markdown]
# ## Late answers
#
# Now every chunk comes 150 ms late, six ticks of the control loop. `synchronous` stands still meanwhile; `naive` goes on with
# the old chunk and then jumps to the new one; `rtc-blend` lets the new chunk grow out of the old. A vertical line is where another
# plan takes over.

# %%
ways = ("synchronous", "naive", "rtc-blend")
runs = {way: episode(ExportedPolicy(export), way, delay_ms=150.0) for way in ways}
figure, axes = plt.subplots(len(ways), 1, figsize=(8, 4.2), sharex=True, sharey=True)
for axis, (way, run) in zip(axes, runs.items(), strict=True):
    ticks = np.arange(len(run["commands"])) / 40
    axis.step(ticks, run["commands"][:, 2], where="post", color="#2a78d6")
    for seam in np.flatnonzero(np.diff(run["plans"])) + 1:
        axis.axvline(seam / 40, color="#e08a1e", linewidth=0.8, alpha=0.7)
    axis.set_ylabel("up")
    axis.set_title(
        f"{way}: {'solved' if run['success'] else 'not solved'} after {len(ticks) / 40:.1f} s", fontsize=9, loc="left"
    )
axes[-1].set_xlabel("seconds")
figure.tight_layout()
plt.show()

# %% [markdown]
# One start is an anecdote. `wam eval delay` measures success, jerk and jerk at the seams over many starts and delays
# ([control](../docs/control.md)).
#
# ## The same from the command line
#
# ```bash
# wam distill configs/distill/demo.yaml                    # a student of runs/demo
# wam export runs/distill/student-0                        # ONNX, checked against torch
# wam serve runs/distill/student-0/export-onnx-fp32        # ws://127.0.0.1:8000, a page at http://127.0.0.1:8000/
# ```
#
# and on the robot's side, where numpy, msgpack and websockets are all that is needed:
#
# ```python
# from wam.control.client import Client
#
# with Client("ws://127.0.0.1:8000") as client:
#     chunk = client.plan(observation)  # (K, A) in the units of client.action_space
# ```
