"""`wam serve`: a checkpoint behind a websocket."""

from __future__ import annotations

import argparse
from pathlib import Path


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser("serve", help="a trained policy behind a websocket, for openpi's clients and others")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="checkpoint, run, or a student's export")
    parser.add_argument("--config", type=Path, help="YAML, e.g. configs/serve/libero.yaml")
    parser.add_argument("--dialect", choices=("openpi", "roboarena", "gr00t"), help="protocol; default: openpi")
    parser.add_argument("--host", help="address to listen on; default: 127.0.0.1")
    parser.add_argument("--port", type=int, help="default: 8000; 0 takes a free one")
    parser.add_argument("--token-file", type=Path, help="what clients must send; needed on any other host")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. policy.steps=1 keys.prompt=task")
    parser.set_defaults(run=serve)


def serve(options: argparse.Namespace) -> None:
    import logging

    from wam.control.exported import ABOUT
    from wam.control.server.config import ServeConfig
    from wam.control.server.running import serve_until_stopped
    from wam.control.server.served import load_served
    from wam.control.server.server import PolicyServer
    from wam.settings import load_settings
    from wam.training.state import newest_checkpoint

    config = load_settings(ServeConfig, options.config, options.overrides)
    for name in ("dialect", "host", "port", "token_file"):
        if getattr(options, name) is not None:
            setattr(config, name, getattr(options, name))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    exported = (options.checkpoint / ABOUT).is_file()
    folder = options.checkpoint if exported else newest_checkpoint(options.checkpoint)
    served = load_served(folder, config.policy, image_size=config.image_size)

    def ready(server: PolicyServer) -> None:
        random = "  RANDOM WEIGHTS" if served.random else ""
        page = server.address.replace("ws", "http", 1)
        if server.gr00t_port:
            print(f"GR00T's clients: port {server.gr00t_port}", flush=True)
        print(f"warm after {server.warm_s:.1f} s; listening at {server.address}  page {page}/{random}", flush=True)

    serve_until_stopped(served, config, ready=ready)
