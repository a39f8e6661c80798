"""The parts of a run's report, in the order a newcomer asks for them. Each takes what was read and returns HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from wam.evaluation.artefacts import FilmStrips
from wam.evaluation.episode_log import Rollout
from wam.evaluation.gates import TARGETS, GateResult
from wam.evaluation.words import number, target_words, words_for
from wam.visualization.animation import animation_uri
from wam.visualization.filmstrip import film_strip, what_if_picture, what_if_rows
from wam.visualization.markup import bar, escape, missing, pixels, plot, section, sheet, table
from wam.visualization.plots import DARK, LIGHT, curves
from wam.visualization.run_files import RunFiles

EVALUATE = "Run <code>wam eval</code> on this run, then <code>wam report</code> again."


def gate_tiles(run: RunFiles) -> str:
    """Green, red or grey: every gate there is, measured or not."""
    found: dict[str, list[GateResult]] = {name: [] for name in TARGETS}
    for result in run.gates or []:
        found.setdefault(result.name, []).append(result)
    tiles = "".join(_tile(name, results) for name, results in found.items())
    success = (run.success or {}).get("policy")
    if success:
        mean, n = success["mean"], len(success["tasks"])
        tiles += (
            '<div class="tile info"><span class="verdict">measured</span><h3>It drives the robot</h3>'
            f'<div class="value">{mean["value"]:.0%}</div>'
            f'<div class="steps">mean of {n} task{"s" if n > 1 else ""} · worst {success["worst"]:.0%}</div>'
            f"<p>Episodes solved in the simulator from starts it has never seen "
            f"(95% interval {mean['low']:.0%} to {mean['high']:.0%}).</p></div>"
        )
    return section(
        "gates",
        "Is it a world model?",
        f'<div class="tiles">{tiles}</div>',
        intro="A network can drive a robot well and still know nothing about the world. These tests find that out; "
        "a red one means that a claim does not hold for this run.",
    )


def _tile(name: str, results: Sequence[GateResult]) -> str:
    words = words_for(name)
    if not results:
        return (
            f'<div class="tile none"><span class="verdict">not measured</span><h3>{escape(words.title)}</h3>'
            f'<div class="value">–</div><p>{escape(words.meaning)}</p></div>'
        )
    worst = min(
        results,
        key=lambda r: (
            r.passed,
            -math.inf if math.isnan(r.value) else r.value * (1 if r.direction == "at_least" else -1),
        ),
    )
    verdict = "pass" if all(r.passed for r in results) else "fail"
    steps = ""
    if len(results) > 1:
        each = " · ".join(
            f"{number(r.value)} at {r.steps} sampling step{'s' if r.steps != 1 else ''}"
            for r in sorted(results, key=lambda r: r.steps)
        )
        steps = f'<div class="steps">{each}</div>'
    unit = words.unit if math.isfinite(worst.value) else ""
    failed = f"<p><b>{escape(words.failed)}</b></p>" if verdict == "fail" else ""
    return (
        f'<div class="tile {verdict}"><span class="verdict">{"passed" if verdict == "pass" else "failed"}</span>'
        f"<h3>{escape(words.title)}</h3>"
        f'<div class="value">{number(worst.value)}{escape(unit)}</div>'
        f'<div class="steps">target: {target_words(worst)} · n = {worst.n}</div>'
        f"<p>{escape(words.meaning)}</p>{failed}{steps}<code>{escape(name)}</code></div>"
    )


def success_tables(run: RunFiles) -> str:
    """Per task and per sentence given."""
    if not run.success:
        return section("success", "Success in the simulator", missing("success in closed loop", EVALUATE))
    parts = []
    titles = {"policy": "", "wrong_text": "Told the sentence of the other task in the same scene (low is good)"}
    for variant, found in run.success.items():
        title = titles.get(variant, variant.replace("_", " "))
        rows = [
            [
                escape(task["environment"]),
                f"{escape(', '.join(task['instructions'][:2]))}{' …' if len(task['instructions']) > 2 else ''}",
                bar(task["value"], task["low"], task["high"]),
                f"{task['successes']} of {task['n']}",
                f"{task['value']:.0%} <span class='small'>({task['low']:.0%}–{task['high']:.0%})</span>",
                f"{task['mean_steps']:.0f}",
            ]
            for task in found["tasks"]
        ]
        heads = ["task", "told", "", "solved", "rate (95%)", "steps"]
        parts.append((f"<h3>{escape(title)}</h3>" if title else "") + table(heads, rows, numeric=(3, 4, 5)))
    return section(
        "success",
        "Success in the simulator",
        *parts,
        intro="The model plans a short chunk of actions from what it sees, carries out the first of them, looks again and "
        "plans anew. Every start is one that training never saw; the line across a bar is its 95% interval.",
    )


def strips(run: RunFiles) -> str:
    """What happened above, what was imagined below, the difference under it."""
    if run.strips is None:
        return section("imagined", "What it imagines", missing("film strips", EVALUATE))
    found = run.strips
    titles = {
        "forward": ("Told the actions", "The model saw one frame and the robot's true actions."),
        "imagine": ("Told only the sentence", "The model saw one frame and the sentence; the actions it had to guess."),
    }
    parts = []
    for kind in dict.fromkeys(found.kinds):
        title, lead = titles.get(kind, (kind, ""))
        chosen = [i for i, k in enumerate(found.kinds) if k == kind]
        frames = found.real.shape[1] * (1 + found.real.shape[2])
        figures = "".join(_strip(found, i) for i in chosen)
        wide = " wide" if frames > 6 else ""
        parts.append(
            f'<h3>{escape(title)}</h3><p class="note">{escape(lead)}</p><div class="strips{wide}">{figures}</div>'
        )
    return section(
        "imagined",
        "What it imagines",
        *parts,
        intro="In each strip: what really happened above, what the model imagined below, and where the two differ at the "
        "bottom (dark is equal, bright is different). Windows were taken by their place in held-out episodes, not by how "
        "well they went.",
    )


def _strip(found: FilmStrips, i: int) -> str:
    _, views, frames = found.real.shape[:3]
    ahead = [f"+{t + 1}" for t in range(frames)] if found.seconds is None else [f"+{s:.2g} s" for s in found.seconds]
    picture = pixels(film_strip(found.real[i], found.imagined[i], found.present[i], scale=2), found.captions[i])
    return (
        f'<figure class="card"><figcaption>{escape(found.captions[i])}</figcaption>'
        f"{sheet(picture, heads=['now', *ahead] * views, rows=['real', 'imagined', 'difference'])}</figure>"
    )


def what_ifs(run: RunFiles) -> str:
    """One start under different actions."""
    if run.what_if is None:
        return section("what-if", "What if?", missing("the same start under different actions", EVALUATE))
    found = run.what_if
    figures = ""
    for i in range(len(found.present)):
        truth = None if found.truth is None else found.truth[i]
        extrinsics = None if found.extrinsics is None else found.extrinsics[i]
        picture = what_if_picture(
            found.present[i], found.imagined[i], found.motion, truth=truth, extrinsics=extrinsics, scale=2
        )
        rows = what_if_rows(found.present.shape[1], truth=truth is not None, reference=found.names[0])
        named = sheet(pixels(picture, "imagined futures"), heads=["now", *found.names], rows=rows)
        figures += f'<figure class="card"><figcaption>Start {i + 1}</figcaption>{named}</figure>'
    truth_words = " Below stands what the simulator really does." if found.truth is not None else ""
    return section(
        "what-if",
        "What if?",
        f'<div class="strips wide">{figures}</div>',
        intro="The same start under different actions: the model imagines where each push leads. Only the action differs, so "
        f"only what the action moves may differ. The small arrow shows the push as that camera sees it; a dot is no push, or "
        f"one along the line of sight.{truth_words}",
    )


def films(run: RunFiles) -> str:
    """Recorded rollouts that succeeded, or were recorded whatever came."""
    chosen = [r for r in run.rollouts or [] if r.episode.variant == "policy" and (r.stride == 1 or r.episode.success)]
    if not chosen:
        return section("rollouts", "Watch it work", missing("recorded rollouts", EVALUATE))
    body = f'<div class="films">{"".join(_film(r) for r in chosen)}</div>'
    lead = "The first starts of every task, whatever came of them; the last picture is framed green if the task was solved."
    return section("rollouts", "Watch it work", body, intro=lead)


def _film(rollout: Rollout) -> str:
    episode = rollout.episode
    mark = "pass" if episode.success else "fail"
    uri = animation_uri(rollout.frames, fps=max(3.0, 20 / rollout.stride), success=episode.success)
    return (
        f'<figure class="card"><img class="pixels" src="{uri}" alt="{escape(episode.environment)}" loading="lazy">'
        f'<figcaption><span class="mark {mark}">{"solved" if episode.success else "not solved"}</span> in '
        f"{episode.steps} steps · {escape(episode.environment)}, start {episode.seed}<br>"
        f"“{escape(episode.instruction)}”</figcaption></figure>"
    )


def failures(run: RunFiles) -> str:
    """Where it fails: gates, tasks, and what a failed episode looked like."""
    lines = [
        f"<b>{escape(words_for(name).title)}</b> does not hold ({escape(name)}): {escape(words_for(name).failed)}"
        for name in dict.fromkeys(r.name for r in run.gates or [] if not r.passed)
    ]
    for task in (run.success or {}).get("policy", {}).get("tasks", []):
        if lost := task["n"] - task["successes"]:
            lines.append(f"{escape(task['environment'])}: {lost} of {task['n']} starts were not solved.")
    shown = [r for r in run.rollouts or [] if not r.episode.success and r.stride > 1 and r.episode.variant == "policy"]
    if run.gates is None and not run.success:
        return section("failures", "Where it fails", missing("gates and success", EVALUATE))
    if not lines:
        return section(
            "failures", "Where it fails", "<p>No gate failed and every start was solved in what was measured.</p>"
        )
    body = f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"
    if shown:
        body += (
            '<p class="note">Failed episodes, one picture each time the policy planned:</p>'
            f'<div class="films">{"".join(_film(r) for r in shown)}</div>'
        )
    return section("failures", "Where it fails", body)


def training_curves(run: RunFiles) -> str:
    """Losses together, everything else that was logged in a plot of its own."""
    if not run.metrics:
        how = "Training writes <code>metrics.jsonl</code>."
        return section("training", "How it was trained", missing("training curves", how))
    checks = {k: v for k, v in run.metrics.items() if k.startswith("check/")}
    losses = {k: v for k, v in run.metrics.items() if "loss" in k and k not in checks}
    rest = {k: v for k, v in run.metrics.items() if k not in losses and k not in checks}
    drawn = []
    if losses:
        drawn.append(("losses", losses, True))
    if checks:
        drawn.append(("on held-out windows", {k.removeprefix("check/"): v for k, v in checks.items()}, False))
    drawn += [(name.replace("_", " "), {name: line}, False) for name, line in list(rest.items())[:6]]
    figures = "".join(
        '<figure class="card">'
        + plot(curves(lines, title=title, log=log, theme=LIGHT), curves(lines, title=title, log=log, theme=DARK), title)
        + "</figure>"
        for title, lines, log in drawn
    )
    return section("training", "How it was trained", f'<div class="plots">{figures}</div>')


def video_metrics(run: RunFiles) -> str:
    """The table of video metrics, copying beside every prediction."""
    if not run.video:
        return section("video", "Video metrics", missing("PSNR, SSIM and a Fréchet distance", EVALUATE))
    fixed = ("prediction", "data", "steps", "n", "frechet_protocol")
    names = list(dict.fromkeys(k for row in run.video for k in row if k not in fixed))
    titles = {"psnr": "PSNR, dB", "psnr_changed": "on changed pixels, dB", "ssim": "SSIM"}
    rows = [
        [
            escape(row["prediction"]),
            escape(row["data"]),
            str(row["steps"] or "–"),
            *(_figure(row, name) for name in names),
            str(row["n"]),
        ]
        for row in run.video
    ]
    heads = ["prediction", "episodes", "sampling steps", *(titles.get(n, n) for n in names), "n"]
    lower = [n for n in names if n.startswith(("frechet", "fvd", "lpips"))]
    intro = "Higher PSNR and SSIM are better" + (f", lower {', '.join(map(escape, lower))}." if lower else ".")
    protocols: list[Mapping[str, Any]] = [r["frechet_protocol"] for r in run.video if r.get("frechet_protocol")]
    if protocols:
        p = protocols[0]
        intro += (
            f" The Fréchet distance uses the extractor {escape(p['extractor'])} (weights {escape(p['weights_sha256'][:12])}), "
            f"{p['frames']} frames at stride {p['stride']}; it compares runs of this project with each other only, "
            "unless it is called fvd."
        )
    return section("video", "Video metrics", table(heads, rows, numeric=range(2, len(heads))), intro=intro)


def _figure(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        return "–"
    return "∞" if row[name] is None else number(row[name], 3 if name == "ssim" or "lpips" in name else 2)
