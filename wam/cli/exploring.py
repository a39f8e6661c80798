"""`wam explore`: a local page on which to push a robot's hand and watch what a model imagines of it."""

from __future__ import annotations

import argparse
from pathlib import Path


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser("explore", help="a local page: drag an action arrow, watch the imagined future")
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="run or checkpoint folder")
    parser.add_argument("--against", type=Path, metavar="RUN", help="another one, asked the same and shown beneath")
    parser.add_argument("--data", type=Path, help="dataset to start from; default: the one the run was trained on")
    parser.add_argument("--host", help="address to listen on; default: 127.0.0.1")
    parser.add_argument("--port", type=int, help="default: 8010; 0 takes a free one")
    parser.add_argument(
        "--token-file", type=Path, help="what a browser must send as password; needed on any other host"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. threads=1 pages=2")
    parser.set_defaults(run=explore)


def explore(options: argparse.Namespace) -> None:
    import logging

    from wam.control.server.running import run_until_stopped
    from wam.explore.explorer import load
    from wam.explore.viewer.server import ViewerConfig, ViewerServer
    from wam.explore.viewer.studio import Studio, limit_threads
    from wam.settings import load_settings

    config = load_settings(ViewerConfig, None, options.overrides)
    for name in ("host", "port", "token_file"):
        if getattr(options, name) is not None:
            setattr(config, name, getattr(options, name))
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    limit_threads(config.threads)
    models = [load(options.run_folder, data=options.data)]
    if options.against is not None:
        models.append(load(options.against))
    studio = Studio(models, run=options.run_folder)

    def ready(server: ViewerServer) -> None:
        random = "  RANDOM WEIGHTS" if any(model.model.provenance.get("random", True) for model in models) else ""
        print(f"open {server.address} in a browser; Ctrl-C ends it{random}", flush=True)

    run_until_stopped(lambda: ViewerServer(studio, config), ready=ready)
