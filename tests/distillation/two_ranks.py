"""What each of two processes runs in the test of distillation over ranks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from accelerate import PartialState

from tests.distillation.conftest import ALL, Square, distill_config
from wam.distillation import labels, on_policy
from wam.distillation.stage import distill

if __name__ == "__main__":
    toy, teacher, out = (Path(word) for word in sys.argv[1:4])
    state = PartialState(cpu=True)
    asked: list[str] = []
    ask = labels.ask_windows

    def counted(*args, **options):  # type: ignore[no-untyped-def]
        asked.append("windows")
        return ask(*args, **options)

    on_policy.make_environment = Square  # type: ignore[assignment]
    labels.ask_windows = counted
    config = distill_config(toy, teacher, out / "run", *ALL)
    config.train.batch_size = 8
    result = distill(config)
    said = {"asked": len(asked), "environments": len(Square.made), "losses": result.losses}
    (out / f"rank-{state.process_index}.json").write_text(json.dumps(said))
    state.wait_for_everyone()
    state.destroy_process_group()
