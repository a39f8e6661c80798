"""What the documentation site takes from elsewhere than docs/: a hook of mkdocs, named in mkdocs.yml.

- Sections of the README, where a page says `<!-- include --> [words](../README.md#heading)` on a line of its own: said once,
  and still a link to whoever reads the page in the repository.
- CONTRIBUTING.md, CHANGELOG.md, cards of trained artefacts and settings that a page links to, as pages of their own.
- The executed notebooks, with their pictures.
- A page for each module, filled from its docstrings by mkdocstrings, which reads the source and imports nothing.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
WHOLE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "README.md": "index.md"}
"""Files of the repository and the page that a link to each leads to."""
SETTINGS = (".yaml", ".yml", ".toml", ".txt")
INCLUDE = re.compile(r"^<!-- include --> \[[^\]]*\]\(((?:\.\./)*)README\.md#([\w-]+)\)$", re.MULTILINE)
LINK = re.compile(r"(\[(?:[^\[\]]|!?\[[^\]]*\])*\])\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
CODE = re.compile(r"`[^`\n]+`")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    pages = {name: relinked((ROOT / source).read_text(), source=ROOT / source, page=name)
             for source, name in WHOLE.items() if source != "README.md"}  # fmt: skip
    pages |= {page_of(path): card(path) for path in linked_files()}
    notebooks = {f"notebooks/{path.stem}.md": path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    pages |= {name: notebook(path, page=name) for name, path in notebooks.items()}
    modules = module_pages()
    pages |= {name: f"# {dotted}\n\n::: {dotted}\n" for name, dotted in modules.items()}
    pages |= {"reference/index.md": rooms(modules)}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    placed = {"notebooks": list(notebooks), "modules": tree(modules)}
    config.nav = [filled(entry, placed) for entry in config.nav or []]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Sections of the README in place of the lines that ask for them, and links that lead to pages."""
    if page.file.generated_by is not None:
        return markdown
    name, parts, last = page.file.src_uri, [], 0
    for found in INCLUDE.finditer(markdown):
        parts += [relinked(markdown[last : found.start()], source=DOCS / name, page=name), section(found[2], page=name)]
        last = found.end()
    return "".join([*parts, relinked(markdown[last:], source=DOCS / name, page=name)])


# links ----------------------------------------------------------------------------------------------------------------


def relinked(text: str, *, source: Path, page: str) -> str:
    """The Markdown of `source` as `page`: links to files of the repository lead to their pages, and are words where they have
    none. Code stays as it is. Raises PluginError for a link to a file that is not there."""

    def lead(found: re.Match[str]) -> str:
        words, target, anchor = found[1], found[2], found[3] or ""
        path = Path(os.path.normpath(source.parent / target))
        if not path.exists():
            raise PluginError(f"expected a file at {target}, linked from {source.name}, got none; correct the link")
        leads = page_of(path)
        if leads is None:
            return words[1:-1]
        return f"{words}({os.path.relpath(leads, Path(page).parent)}{anchor})"

    parts = FENCE.split(text)
    return "".join(part if part.startswith("```") else unescaped(LINK.sub(lead, part)) for part in parts)


def unescaped(text: str) -> str:
    """Code in tables: GitHub wants its bars escaped, Python-Markdown shows the backslash."""
    return CODE.sub(lambda found: found[0].replace("\\|", "|"), text)


def page_of(path: Path) -> str | None:
    """Where a file of the repository is found on the site, relative to its root."""
    name = path.relative_to(ROOT).as_posix()
    if name in WHOLE:
        return WHOLE[name]
    if path.is_relative_to(DOCS) and not path.is_relative_to(DOCS / "results"):
        return path.relative_to(DOCS).as_posix() if path.is_file() else None
    if path.suffix == ".ipynb":
        return f"notebooks/{path.stem}.md"
    if path.is_file() and (path.suffix in SETTINGS or path.name == "README.md"):
        return f"files/{name.removesuffix('.md')}.md"
    return None


def linked_files() -> list[Path]:
    """Settings and cards that a document links to, and that get a page."""
    documents = [ROOT / name for name in WHOLE] + sorted(DOCS.rglob("*.md")) + sorted((ROOT / "notebooks").glob("*.py"))
    found = set()
    for document in documents:
        for _, target, _ in LINK.findall(document.read_text()):
            path = Path(os.path.normpath(document.parent / target))
            if path.is_relative_to(ROOT) and (page_of(path) or "").startswith("files/"):
                found.add(path)
    return sorted(found)


def card(path: Path) -> str:
    """A Markdown file as it is, another as code."""
    name = path.relative_to(ROOT).as_posix()
    if path.suffix == ".md":
        return relinked(path.read_text(), source=path, page=str(page_of(path)))
    kind = {".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}.get(path.suffix, "text")
    return f"# {name}\n\n```{kind}\n{path.read_text().rstrip()}\n```\n"


# the README -----------------------------------------------------------------------------------------------------------


def section(heading: str, *, page: str) -> str:
    """A section of the README, without its heading. Raises PluginError if it has none of that name."""
    for part in re.split(r"^## ", (ROOT / "README.md").read_text(), flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        if re.sub(r"[^\w]+", "-", title.lower()).strip("-") == heading:
            return relinked(body.strip(), source=ROOT / "README.md", page=page)
    raise PluginError(f"expected a section #{heading} in README.md, asked for by {page}, got none; correct the anchor")


# notebooks ------------------------------------------------------------------------------------------------------------


def notebook(path: Path, *, page: str) -> str:
    """An executed notebook as Markdown: what was said, the code, and what came of it."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"]).rstrip()
        if cell["cell_type"] == "markdown":
            parts.append(relinked(text, source=path, page=page))
        elif text:
            parts.append(f"```python\n{text}\n```")
        parts += [output for one in cell.get("outputs", ()) if (output := shown(one))]
    return "\n\n".join(parts) + "\n"


def shown(output: Mapping[str, Any]) -> str:
    """One output of a cell: its HTML, else its picture, else its words."""
    data = {kind: "".join(value) for kind, value in output.get("data", {}).items() if isinstance(value, str | list)}
    if "text/html" in data:
        html = re.sub(r"\n\s*\n", "\n", data["text/html"])  # an empty line would end the block
        return f'<div class="output">{html}</div>'
    if "image/png" in data:
        source = f"data:image/png;base64,{data['image/png'].strip()}"
        return f'<div class="output"><img alt="what the cell drew" src="{source}"></div>'
    words = "".join(output.get("text", data.get("text/plain", ""))).rstrip()
    return f"```text\n{words}\n```" if words else ""


# modules --------------------------------------------------------------------------------------------------------------


def module_pages() -> dict[str, str]:
    """By page, the module's dotted name: every one of the package that holds something."""
    found = {}
    for path in sorted((ROOT / "wam").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if "__pycache__" in parts or path.name == "__main__.py":
            continue
        dotted = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        place = "/".join(dotted.split(".")[1:]) or "wam"
        above = "/index" if path.name == "__init__.py" and place != "wam" else ""
        found[f"reference/{place}{above}.md"] = dotted
    return found


def tree(modules: Mapping[str, str]) -> list[Any]:
    """The pages as navigation: a room with its modules beneath it."""
    nested: dict[str, Any] = {}
    for page in modules:
        *above, last = page.removeprefix("reference/").removesuffix(".md").split("/")
        place = nested
        for room in above:
            place = place.setdefault(room, {})
        place[last] = page

    def entries(of: Mapping[str, Any]) -> list[Any]:
        first = [of["index"]] if "index" in of else []
        rest = [
            {name: entries(value) if isinstance(value, dict) else value}
            for name, value in of.items()
            if name != "index"
        ]
        return [*first, *rest]

    return ["reference/index.md", *entries(nested)]


def rooms(modules: Mapping[str, str]) -> str:
    """The page above them: each room and what its `__init__` says of it."""
    lines = ["# Modules", "", "Every module of the package, from its docstrings. What the rooms may import of each other is in "
             "[Contributing](../contributing.md#where-things-live).", ""]  # fmt: skip
    for page, dotted in modules.items():
        if dotted.count(".") == 1:
            lines.append(f"- [`{dotted}`]({os.path.relpath(page, 'reference')}): {first_words(dotted)}")
    return "\n".join(lines) + "\n"


def first_words(dotted: str) -> str:
    """The first paragraph of a module's docstring."""
    base = ROOT.joinpath(*dotted.split("."))
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    words = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
    return " ".join(words.split())


def filled(entry: Any, placed: Mapping[str, list[Any]]) -> Any:
    """The navigation with the generated pages in the places that mkdocs.yml keeps for them."""
    if not isinstance(entry, dict):
        return entry
    return {title: placed[value] if isinstance(value, str) and value in placed
            else [filled(one, placed) for one in value] if isinstance(value, list) else value
            for title, value in entry.items()}  # fmt: skip
