"""The documentation as a folder of pages, built offline: `make docs` writes site/.

site/index.html is the README, beside it the architecture, contributing and changelog pages; site/api/ is what the
docstrings say (pdoc).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import markdown2
import pdoc

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.html",
    "docs/architecture.md": "architecture.html",
    **{
        f"docs/{name}.md": f"{name}.html"
        for name in (
            "curation",
            "latent_actions",
            "backbones",
            "scale",
            "distillation",
            "control",
            "lerobot",
            "explore",
        )
    },
    "CONTRIBUTING.md": "contributing.html",
    "CHANGELOG.md": "changelog.html",
}
STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.6 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-size: .92em; display: block; overflow-x: auto }
td, th { border: 1px solid #8885; padding: .25rem .6rem; text-align: left; vertical-align: top }
pre { background: #8882; padding: .8rem; overflow-x: auto; border-radius: .3rem }
code { font-size: .9em } img { max-width: 100% }
"""


def page(source: Path) -> str:
    """A Markdown file as an HTML page; links to the other pages lead there, those to other files of the repository are
    left as words."""
    text = source.read_text(encoding="utf-8")
    body = str(markdown2.markdown(text, extras=["tables", "fenced-code-blocks", "header-ids", "cuddled-lists"]))
    for path, name in PAGES.items():
        beside = Path(path).name if source.parent.name == Path(path).parent.name else path
        body = re.sub(rf'href="(?:{re.escape(path)}|{re.escape(beside)})', f'href="{name}', body)
    kept = "|".join(re.escape(name) for name in PAGES.values())
    body = re.sub(rf'<a href="(?!https?://|#|(?:{kept})")[^"]*">(.*?)</a>', r"\1", body, flags=re.DOTALL)
    body = body.replace('src="docs/images/', 'src="images/')
    links = " · ".join(f'<a href="{name}">{Path(name).stem}</a>' for name in PAGES.values())
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title[1] if title else source.stem}</title><style>{STYLE}</style></head>"
        f'<body><nav>{links} · <a href="api/index.html">api</a></nav>{body}</body></html>\n'
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "site")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    for source, name in PAGES.items():
        (options.output / name).write_text(page(ROOT / source), encoding="utf-8")
    shutil.copytree(ROOT / "docs" / "images", options.output / "images", dirs_exist_ok=True)
    os.environ.setdefault("PDOC_ALLOW_EXEC", "1")  # a library that the simulator imports asks a child for its version
    pdoc.render.configure(docformat="markdown", search=True, footer_text="wam")
    pdoc.pdoc("wam", output_directory=options.output / "api")
    sys.stdout.write(f"{options.output / 'index.html'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
