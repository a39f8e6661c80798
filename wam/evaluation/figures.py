"""Figures of a tokenizer, voxels, steering, delays or a student: what each means and has to reach, how they are printed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wam.evaluation.summary import write_summary

AT_LEAST = {
    "probe_r2": 0.6,
    "probe_r2_worst_axis": 0.35,
    "perplexity_share": 0.4,
    "code_sensitivity": 1.3,
    "transfer_gain": 1.05,
    "iou_present": 0.65,
    "future_gain": 1.5,
    "kept_out": 0.95,
    "retained": 0.95,
}
AT_MOST = {"probe_r2_shuffled": 0.05, "dead_codes": 0.0, "success_lost_points": 15.0, "rtc_loss_share": 1 / 3}

MEANINGS = {
    "probe_r2": "linear probe, latent to true hand displacement, held-out play; mean of the axes",
    "probe_r2_worst_axis": "its worst axis",
    "probe_r2_shuffled": "the same probe fitted to shuffled displacements",
    "probe_r2_task": "displacement read from the task's identity alone",
    "probe_r2_mlp": "the same by a small network",
    "probe_r2_lookup": "the mean displacement of each code",
    "probe_r2_action": "displacement read from the true mean action",
    "probe_r2_features": "displacement read linearly from frozen features of both frames",
    "probe_r2_demonstrations": "the linear probe on held-out demonstrations",
    "probe_r2_task_demonstrations": "the task's identity alone, there",
    "perplexity_share": "perplexity of the codes of held-out windows over their number",
    "perplexity_share_human": "the same on held-out human clips",
    "dead_codes": "codes that none of the windows read here uses",
    "codes": "codes there are",
    "code_sensitivity": "held-out human scenes: error of the next frame with shuffled over true codes, changed pixels",
    "human_gain_db": "held-out human scenes: next frame, dB above copying, changed pixels",
    "simulator_sensitivity": "held-out simulator windows: error with shuffled over true codes, changed pixels",
    "simulator_gain_db": "held-out simulator windows: next frame, dB above copying, changed pixels",
    "transfer_gain": "codes of a human clip on the aligned robot clip: copied over transferred error, changed pixels",
    "transfer_gain_own": "the robot clip's own codes, for comparison",
    "transfer_gain_shuffled": "codes of another moment of the human clip",
    "swap_r2": "codes of clip A on clip B of another scene, read from the frames they give: displacement of A",
    "retrieval_cosine": "nearest latent of another scene: cosine between both displacements",
    "retrieval_cosine_random": "the same for a random window of another scene",
    "jitter_response": "latent's change when a still scene's camera shakes, over its spread in real motion",
    "jitter_response_human": "the same in held-out human scenes",
    "iou_present": "voxels of the present, held-out episodes: intersection over union",
    "iou_present_usual": "the same for the voxels that are filled in most training frames",
    "iou_present_lifted": "the same for true depth of the same cameras, fused without learning",
    "iou_future": "voxels of the last frame to come, given the true actions",
    "iou_future_copied": "the same for the true present, copied",
    "iou_future_imagined": "the same without the actions",
    "iou_changed": "where the last frame to come differs from the present, a voxel around included",
    "iou_changed_copied": "the same for the true present, copied",
    "future_gain": "iou_changed over iou_changed_copied",
    "chamfer_present": "metres between predicted and true voxels of the present",
    "chamfer_future": "the same of the last frame to come",
    "f_1cm_present": "F-score of the present's voxels within one centimetre",
    "f_2cm_present": "within two",
    "f_5cm_present": "within five",
    "f_1cm_future": "F-score of the last frame to come within one centimetre",
    "f_2cm_future": "within two",
    "f_5cm_future": "within five",
    "colour_error_present": "surface voxels of the present: mean difference of their colour, of 1",
    "colour_error_present_mean": "the same for the mean colour of the training data",
    "colour_error_present_usual": "the same for each voxel's own mean there",
    "colour_error_future": "surface voxels of the last frame to come, given the true actions",
    "colour_error_future_mean": "the same for the mean colour of the training data",
    "colour_error_future_copied": "the same for the true present's colours, a voxel's own mean where it has none",
    "colour_error_changed": "where the last frame to come has another colour than the present, or the present none",
    "colour_error_changed_copied": "the same for the true present's colours, a voxel's own mean where it has none",
    "found_robot_present": "the robot's surface voxels of the present: the share that is said to be filled",
    "found_object_present": "the same of the objects'",
    "found_ground_present": "the same of table, floor and walls",
    "found_robot_future": "the robot's, of the last frame to come",
    "found_object_future": "the objects'",
    "found_ground_future": "that of table, floor and walls",
    "kept_out": "chunks that the plain policy sends into a forbidden box: the share that the steered one sends no more",
    "kept_out_late": "steered only from the states in which plain chunks entered: the share kept out",
    "success_lost_points": "success of the plain policy, which ignores the box, less that of the steered one",
    "success_plain": "episodes with a box in the way, plain policy",
    "success_steered": "the same starts, steered",
    "naive_lost_points": "success without delay, less that of naive execution at the longest",
    "rtc_lost_points": "the same of real-time chunking",
    "rtc_loss_share": "rtc_lost_points over naive_lost_points",
    "retained": "success of the student over its teacher's, the same unseen starts",
    "retained_low": "the lower end of its 95% interval over starts",
    "retained_high": "the upper end",
    "success_teacher": "mean over tasks",
    "success_student": "the same, of the student",
    "success_teacher_worst": "of its worst task",
    "success_student_worst": "the same, of the student; of all seeds",
    "success_served": "episodes that succeed with the exported student behind a server",
    "chunk_ms_served": "milliseconds from an observation to the served student's chunk, websocket included, on this machine",
    "chunk_ms_teacher_direct": "milliseconds of the teacher's chunk, asked directly",
}

MEANINGS_BY_START = {
    "retained_": "the same share of a control, and the ends of its interval",
    "success_": "episodes that succeed",
    "routed_": "chunks that went to the teacher, by doubt and share asked for",
    "doubt_rank_": "held-out chunks: rank correlation of the doubt and the distance from the teacher's chunk",
    "chunk_ms_": "of planning a chunk, on this machine",
    "thought_fresh_": "chunks that were handed a thought of use, by its delay",
    "thought_stale_": "one that was too old",
    "thought_absent_": "none, since the first had not come",
    "held_": "ticks in which there was nothing to carry out",
    "jerk_": "units per tick cubed, mean of all ticks",
    "seam_jerk_": "the same where another plan takes over, or none",
}


def meaning(name: str) -> str:
    """What a figure says; of those that are measured in many variants, by how its name starts."""
    return MEANINGS.get(name) or next((said for start, said in MEANINGS_BY_START.items() if name.startswith(start)), "")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number, with how many windows (or pairs) stand behind it."""

    name: str
    value: float
    n: int

    @property
    def target(self) -> tuple[str, float] | None:
        if self.name in AT_LEAST:
            return "at least", AT_LEAST[self.name]
        return ("at most", AT_MOST[self.name]) if self.name in AT_MOST else None

    @property
    def passed(self) -> bool | None:
        """None where there is no target; what is not finite never passes."""
        if self.target is None:
            return None
        how, target = self.target
        return math.isfinite(self.value) and (self.value >= target if how == "at least" else self.value <= target)


@dataclass(kw_only=True)
class Measured:
    """figures in the order of printing; unmeasured: what was not measured and why."""

    figures: list[Figure] = field(default_factory=list)
    unmeasured: list[str] = field(default_factory=list)

    def add(self, name: str, value: float, n: int) -> None:
        self.figures.append(Figure(name=name, value=float(value), n=n))

    @property
    def values(self) -> dict[str, float]:
        return {figure.name: figure.value for figure in self.figures}

    @property
    def counts(self) -> dict[str, int]:
        """How many windows (or pairs) stand behind each."""
        return {figure.name: figure.n for figure in self.figures}

    @property
    def passed(self) -> bool:
        return all(figure.passed is not False for figure in self.figures)


def format_figures(figures: Sequence[Figure], *, title: str, unmeasured: Sequence[str] = ()) -> str:
    """One line a figure: verdict, name, value, target, n and what it means; then what was not measured, and why."""
    lines = [title]
    for figure in figures:
        verdict = {True: "PASS", False: "FAIL", None: ""}[figure.passed]
        target = "" if figure.target is None else f"{figure.target[0]} {figure.target[1]:g}"
        value = "not measurable" if not math.isfinite(figure.value) else f"{figure.value:.3f}"
        lines.append(
            f"  {verdict:4}  {figure.name:<28} {value:>14}  {target:<14} n={figure.n:<6} {meaning(figure.name)}"
        )
    lines += [f"  not measured: {reason}" for reason in unmeasured]
    judged = [figure.passed for figure in figures if figure.passed is not None]
    lines.append(f"  {sum(judged)} of {len(judged)} passed")
    return "\n".join(lines)


def save_figures(
    found: Measured, folder: Path, *, seed: int, also: Path | None = None, extra: Mapping[str, Any] | None = None
) -> list[Path]:
    """summary.json in the folder, and the same in `also`. Returns the pictures drawn: none."""
    said = {"unmeasured": found.unmeasured, **(extra or {})}
    for path in (folder / "summary.json", *([also] if also else [])):
        write_summary(path, found.values, n=found.counts, seeds=[seed], extra=said)
    return []
