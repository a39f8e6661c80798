"""Parse `wam <verb> ...`, run the verb, and turn its errors into sentences."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable, Sequence

import wam
from wam.cli import collecting, datasets, distilling, evaluating, exploring, serving, training
from wam.contracts import WamError

Verb = Callable[[argparse.Namespace], int | None]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wam", description="World-action models: collect, train, imagine, evaluate, report, explore, serve."
    )
    parser.add_argument("--version", action="version", version=f"wam {wam.__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for module in (collecting, datasets, training, distilling, evaluating, exploring, serving):
        module.register(verbs)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0 if it did its work, 1 if a check it ran failed, 2 on bad input or a fault."""
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(options, "overrides") or any("=" not in word or word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:  # key=value words that stand behind an option
        options.overrides = [*options.overrides, *rest]
    try:
        return options.run(options) or 0
    except WamError as error:
        print(f"wam {options.verb}: {error}", file=sys.stderr)
    except KeyboardInterrupt as error:
        print(
            f"wam {options.verb}: {str(error) or 'interrupted; give the same command again to go on'}", file=sys.stderr
        )
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "wam":
            raise
        print(
            f"wam {options.verb}: expected the package {error.name}, got none; install the extra that brings it, "
            "e.g. pip install 'wam[sim]'",
            file=sys.stderr,
        )
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        print(
            f"wam {options.verb}: expected to be able to write {error.filename or 'the output'}, got {error.strerror}; "
            "free some space or name another folder; what was finished is kept",
            file=sys.stderr,
        )
    return 2
