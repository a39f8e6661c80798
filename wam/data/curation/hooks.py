"""A caller's functions by name: `module:function`, for captions and embeddings on the command line."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wam.contracts import expected
from wam.data.curation.pipeline import Hooks


def load_hooks(*, caption: str | None = None, embed: str | None = None) -> Hooks:
    """The functions named `module:function`; modules of the current folder are found too."""
    return Hooks(
        caption=None if caption is None else load_function(caption),
        embed=None if embed is None else load_function(embed),
    )


def load_function(name: str) -> Callable[..., Any]:
    """Raises WamError for a module that is not there and for what is no function of it."""
    module, colon, function = name.partition(":")
    if not (module and colon and function):
        raise expected("a function as module:function", got=repr(name), do="write e.g. captions:describe")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0] and error.name != module:
            raise
        raise expected(
            f"the module {module!r}", got="none of this name", do="call from its folder, or install it"
        ) from error
    if not callable(found):
        raise expected(f"a function {function!r} in {module}", got=type(found).__name__, do="check the name")
    return found
