"""Latents on a Ray cluster: what `wam data cache` makes, spread over machines by Ray Data; the files are equal.

    pip install 'wam[ray]'
    laptop:   python tools/cache_cluster.py CONFIG data.latents=runs/latents --workers 2
    cluster:  python tools/cache_cluster.py CONFIG data.latents=/mnt/shared/latents --address auto --workers 64 --device cuda

Datasets, weights and latents lie on a file system that every machine sees under the same path. Each worker holds one encoder,
and with `--device cuda` one accelerator. A file appears whole or not at all, so the same command goes on after an
interruption. Sentences are encoded where this is called.
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
from wam.data.on_ray import connect
from wam.progress import Progress
from wam.settings import load_settings
from wam.training.config import TrainConfig
from wam.training.latent_cache import Clip, ClipEncoder, precompute

_BLOCKS = 10_000  # pieces of work that Ray keeps account of; larger runs put several clips into one


class Encoder:
    """What a Ray worker holds."""

    def __init__(self, config: TrainConfig, device: str) -> None:
        self.encoder = ClipEncoder(config, device)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, str]:
        clip = Clip(**json.loads(row["clip"]))
        self.encoder.encode(clip)
        return {"clip": clip.clip}


@dataclasses.dataclass
class OnRay:
    """An executor of `precompute`. workers: Ray workers; 0 for one per core, or per accelerator, of the cluster."""

    workers: int = 0

    def __call__(self, clips: Sequence[Clip], config: TrainConfig, device: str) -> Iterator[None]:
        import ray

        counted = "GPU" if device == "cuda" else "CPU"
        workers = self.workers or max(1, int(ray.cluster_resources().get(counted, 1)))
        rows = [{"clip": json.dumps(dataclasses.asdict(clip))} for clip in clips]
        done = ray.data.from_items(rows, override_num_blocks=min(len(rows), _BLOCKS)).map(
            Encoder,
            fn_constructor_args=(config, device),
            concurrency=min(workers, len(rows)),
            num_cpus=1,
            num_gpus=1 if device == "cuda" else 0,
        )
        for _ in done.iter_rows():
            yield None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="of the training")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--address", help="of a running cluster, e.g. auto; without it Ray is started here")
    parser.add_argument("--workers", type=int, default=0, help="0 for one per core, or per accelerator")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_intermixed_args(arguments)
    try:
        config = load_settings(TrainConfig, options.config, options.overrides)
        connect(options.address)
        with Progress("clips", 0) as bar:

            def show(done: int, total: int) -> None:
                if not bar.total:
                    bar.total, bar.start = total, done
                bar.update(done)

            found = precompute(config, device=options.device, executor=OnRay(options.workers), progress=show)
    except WamError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"latents of {found.clips} clips ({found.new} new) in {found.folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
