"""`wam data info | stats | doctor | convert | label | curate | cache`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from wam.progress import Progress


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser("data", help="look at, check and convert datasets")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, run, text in (
        ("info", info, "what a dataset holds"),
        ("stats", stats, "statistics of every feature, without decoding video; rewrites meta/stats.json"),
        ("doctor", doctor, "find flipped images, wrong signs, offsets, broken frames; status 1 if something is wrong"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("root", type=Path)
        action.add_argument("--json", type=Path, help="also write the answer to this file")
        action.set_defaults(run=run)
        if name == "doctor":
            action.add_argument("--no-replay", action="store_true", help="do not replay actions in the simulator")
    action = actions.add_parser("convert", help="LeRobot v2, RLDS, HDF5 or videos to LeRobot v3.0")
    action.add_argument("source", type=Path)
    action.add_argument("target", type=Path)
    action.add_argument("--format", default="auto")
    action.add_argument("--fps", type=float)
    action.add_argument("--limit", type=int, help="the first episodes only")
    action.add_argument("--task", help="a sentence for episodes that have none")
    action.add_argument("--skip-damaged", action="store_true")
    action.set_defaults(run=convert)
    action = actions.add_parser("label", help="which voxels are occupied at every frame")
    action.add_argument("root", type=Path)
    action.add_argument("--config", type=Path, help="YAML of the grid: shape, origin, side")
    action.add_argument("--processes", type=int, default=0, help="0: one per processor")
    action.add_argument(
        "--from",
        dest="source",
        choices=("geoms", "depth"),
        default="geoms",
        help="geoms: exact, from a simulator's states; depth: what the recorded depth of the cameras shows",
    )
    action.add_argument("--colour", action="store_true", help="also the colours of the surface of what is filled")
    action.set_defaults(run=label, overrides=[])
    action = actions.add_parser("curate", help="raw video to filtered clips, as a LeRobot v3.0 folder without actions")
    action.add_argument("sources", nargs="+", metavar="FOLDER", help="or videos, lists (.txt, .jsonl), tar shards")
    action.add_argument("--output", type=Path, help="folder of the new dataset; the same command goes on there")
    action.add_argument("--config", type=Path, help="YAML, e.g. configs/data/curate.yaml")
    action.add_argument("--plan", action="store_true", help="only say what it will take, from a timed sample")
    action.add_argument("--hours", type=float, help="plan: for so many hours of such video")
    action.add_argument("--caption", metavar="MODULE:FUNCTION", help="frames (T, H, W, 3) uint8 -> a sentence")
    action.add_argument(
        "--embed", metavar="MODULE:FUNCTION", help="frames (T, H, W, 3) uint8 -> numbers, for duplicates"
    )
    action.set_defaults(run=curate, overrides=[])
    action = actions.add_parser(
        "cache", help="latents and text features of a training run, made before it; the same command goes on"
    )
    action.add_argument("config", type=Path, help="of the training, e.g. configs/train/wan2.2-5b-libero.yaml")
    action.add_argument("--processes", type=int, default=1, help="each with its own encoder, and accelerator if any")
    action.add_argument("--device", default="", help="cpu or cuda; default: an accelerator if there is one")
    action.add_argument("overrides", nargs="*", metavar="key=value", help="as of the training: data.latents=FOLDER")
    action.set_defaults(run=cache)


def info(options: argparse.Namespace) -> None:
    from wam.data.info import describe, description_text

    found = describe(options.root)
    print(description_text(found))
    _save(options.json, found)


def stats(options: argparse.Namespace) -> None:
    from wam.data.info import statistics_text, update_statistics

    found = update_statistics(options.root)
    print(statistics_text(found))
    _save(options.json, found.to_json())


def doctor(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from wam.evaluation.doctor import examine

    diagnosis = examine(options.root, replay=not options.no_replay)
    print("\n".join(diagnosis.lines()))
    _save(options.json, asdict(diagnosis))
    return 0 if diagnosis.healthy else 1


def label(options: argparse.Namespace) -> None:
    from wam.geometry.grid import VoxelConfig
    from wam.settings import load_settings

    grid = load_settings(VoxelConfig, options.config, options.overrides)
    with Progress("episodes", 0) as bar:

        def show(done: int, total: int) -> None:
            if not bar.total:
                bar.total, bar.start = total, done
            bar.update(done)

        if options.source == "depth":
            from wam.data.depth_labels import label_from_depth

            labels = label_from_depth(options.root, grid, colour=options.colour, progress=show)
        else:
            from wam.simulation.label import label_occupancy

            labels = label_occupancy(
                options.root, grid, colour=options.colour, processes=options.processes, progress=show
            )
    what = "occupancy and colours" if options.colour else "occupancy"
    print(f"{what} of {' x '.join(map(str, grid.shape))} voxels of {grid.side:g} m in {labels.folder}")


def convert(options: argparse.Namespace) -> None:
    from wam.data.convert import convert as run

    with Progress("episodes", 1) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done)

        found = run(
            options.source,
            options.target,
            format=options.format,
            fps=options.fps,
            limit=options.limit,
            task=options.task,
            skip_damaged=options.skip_damaged,
            resume=(options.target / "meta").exists(),
            progress=show,
        )
    print("\n".join(found.notes))
    print(f"{found.episodes} episodes, {found.frames} frames of {found.format} in {found.root}")


def curate(options: argparse.Namespace) -> None:
    from wam.contracts import expected
    from wam.data.curation.config import CurateConfig
    from wam.data.curation.hooks import load_hooks
    from wam.data.curation.pipeline import curate as run
    from wam.data.curation.plan import plan
    from wam.settings import load_settings

    settings = [word for word in options.sources if "=" in word and not Path(word).exists()]
    sources = [word for word in options.sources if word not in settings]
    config = load_settings(CurateConfig, options.config, [*settings, *options.overrides])
    if options.plan:
        with Progress("timed", 1) as bar:
            print(plan(sources, config, hours=options.hours, progress=lambda done, total: _show(bar, done, total)))
        return
    if options.output is None:
        raise expected("--output FOLDER", got="none", do="name the folder of the new dataset, or ask for --plan")
    hooks = load_hooks(caption=options.caption, embed=options.embed)
    with Progress("videos", 1) as bar:
        done = run(sources, options.output, config, hooks=hooks, progress=lambda *shown: _show(bar, *shown))
    for reason, count in done.rejected.items():
        print(f"  left out   {count:6d}  {reason}")
    print(f"{done.episodes} episodes, {done.seconds:.0f} s of {done.raw_seconds:.0f} s of raw video, in {done.root}")
    print(f"{done.new} clips new in {done.spent:.0f} s; see manifest.parquet and rejected.parquet there")


def cache(options: argparse.Namespace) -> None:
    import torch

    from wam.settings import load_settings
    from wam.training.config import TrainConfig
    from wam.training.latent_cache import precompute

    config = load_settings(TrainConfig, options.config, options.overrides)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    with Progress("clips", 0) as bar:

        def show(done: int, total: int) -> None:
            if not bar.total:
                bar.total, bar.start = total, done
            bar.update(done)

        found = precompute(config, device=device, processes=options.processes, progress=show)
    print(f"latents of {found.clips} clips ({found.new} new) and {found.sentences} sentences in {found.folder}")


def _show(bar: Progress, done: int, total: int, note: str = "") -> None:
    bar.total = total
    bar.update(done, note=note)


def _save(path: Path | None, value: object) -> None:
    if path is not None:
        from wam.files import write_bytes

        write_bytes(path, (json.dumps(value, indent=2, default=str) + "\n").encode())
