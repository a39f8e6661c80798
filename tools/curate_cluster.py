"""Curation on a Ray cluster: the stages of `wam data curate`, spread over machines by Ray Data; the output is equal.

    pip install 'wam[curate,ray]'
    laptop:   python tools/curate_cluster.py VIDEOS --output runs/clips --config configs/data/curate.yaml
    cluster:  python tools/curate_cluster.py VIDEOS --output /mnt/shared/clips --address auto --workers 512

Sources and output lie on a file system that every machine sees under the same path. Each worker keeps its decoder in a
process of its own, so a file that kills it costs one clip, as on one machine. The same command goes on after an
interruption; what is on record is kept, source by source. Duplicates, tables and packing run where this is called.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wam.contracts import WamError
from wam.data.curation.config import CurateConfig
from wam.data.curation.pipeline import curate
from wam.data.curation.records import Event, Item, Unit, from_plain, to_plain
from wam.data.curation.workers import Stage, WorkerPool
from wam.data.on_ray import connect
from wam.progress import Progress
from wam.settings import load_settings

_BLOCKS = 10_000  # pieces of work that Ray keeps account of; larger runs put several sources into one


class Curator:
    """What a Ray worker holds: one decoding process, which outlives the sources that it reads."""

    def __init__(self, config: CurateConfig, folder: str, stage: Stage) -> None:
        self.pool = WorkerPool(config, Path(folder), processes=1, stage=stage)

    def __call__(self, row: Mapping[str, Any]) -> Iterator[dict[str, str]]:
        for event in self.pool.run([unit_from(row["unit"])]):
            yield {"event": json.dumps(to_plain(event))}


def unit_text(unit: Unit) -> str:
    item = {**dataclasses.asdict(unit.item), "path": str(unit.item.path)}
    return json.dumps({"item": item, "start": unit.start})


def unit_from(text: str) -> Unit:
    found = json.loads(text)
    return Unit(item=Item(**{**found["item"], "path": Path(found["item"]["path"])}), start=found["start"])


@dataclasses.dataclass
class OnRay:
    """An executor of `curate`. workers: Ray workers, each with one core; 0 for one per core of the cluster."""

    workers: int = 0

    def __call__(self, units: Sequence[Unit], config: CurateConfig, folder: Path, stage: Stage) -> Iterator[Event]:
        import ray

        workers = self.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        rows = [{"unit": unit_text(unit)} for unit in units]
        events = ray.data.from_items(rows, override_num_blocks=min(len(rows), _BLOCKS)).flat_map(
            Curator,
            fn_constructor_args=(config, str(folder.resolve()), stage),
            concurrency=min(workers, len(rows)),
            num_cpus=1,
        )
        for row in events.iter_rows():
            yield from_plain(json.loads(row["event"]))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="FOLDER", help="or videos, lists, tar shards; key=value settings")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--address", help="of a running cluster, e.g. auto; without it Ray is started here")
    parser.add_argument("--workers", type=int, default=0, help="0 for one per core")
    options, rest = parser.parse_known_args(arguments)
    if wrong := [word for word in rest if "=" not in word or word.startswith("-")]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    settings = [word for word in options.sources if "=" in word and not Path(word).exists()]
    sources = [word for word in options.sources if word not in settings]
    try:
        config = load_settings(CurateConfig, options.config, [*settings, *rest])
        connect(options.address)
        with Progress("videos", 1) as bar:

            def show(done: int, total: int, note: str) -> None:
                bar.total = total
                bar.update(done, note=note)

            done = curate(sources, options.output, config, executor=OnRay(options.workers), progress=show)
    except WamError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{done.episodes} episodes, {done.seconds:.0f} s in {done.root} ({done.new} clips new)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
