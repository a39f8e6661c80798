"""The documentation site builds strictly, asks no other host for anything, and can be searched when opened from a folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="`make setup` installs what the site is built with")
pytest.importorskip("material")

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import PluginError

from tests.control.browser import Page, chromium
from tests.tools import tool

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "tools" / "mkdocs.yml"
DOCS = ROOT / "docs"


def built(folder: Path, *plugins: str) -> Path:
    """The site in `folder`; with plugins named, of these alone. Raises Abort for any warning."""
    chosen = {"plugins": list(plugins)} if plugins else {}
    build(load_config(str(CONFIG), site_dir=str(folder), strict=True, **chosen))
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every page; those of modules are empty, since reading all docstrings takes a while."""
    return built(tmp_path_factory.mktemp("site"), "search", "offline")


def pages(site: Path) -> list[Path]:
    return [path for path in site.rglob("*.html") if path.name != "404.html"]


HOST = r"""["']?((?:https?:)?//[^"' >]+)"""
LOADED = rf"<(?:script|img|iframe|source)\b[^>]*?\bsrc={HOST}|<link\b[^>]*?\bhref={HOST}"


def test_no_page_loads_anything_of_another_host(site: Path) -> None:
    found = {path.name: hits for path in pages(site) if (hits := re.findall(LOADED, path.read_text()))}
    assert found == {}


@pytest.mark.parametrize("tag", ['<script src="https://x.org/a.js">', "<link rel=a href=//fonts.x.org/a.css>"])
def test_the_check_of_hosts_finds(tag: str) -> None:
    assert re.findall(LOADED, tag)


def test_each_document_of_the_repository_has_its_page(site: Path) -> None:
    there = {path.relative_to(site).with_suffix("").as_posix() for path in pages(site)}
    wanted = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")} - {"results/README"}
    wanted |= {"contributing", "changelog"} | {
        f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")
    }
    assert wanted <= there


def test_each_module_has_its_page(site: Path) -> None:
    modules = {path for path in (ROOT / "wam").rglob("*.py") if path.name != "__main__.py"}
    assert len(list((site / "reference").rglob("*.html"))) == len(modules) + 1  # and the page above them


def test_results_are_the_readmes_and_are_typed_once(site: Path) -> None:
    shown = (site / "results.html").read_text()
    for heading in ("success_mean", "What has and has not been run", "Limits"):
        assert heading in shown
    assert "success_mean" not in (DOCS / "results.md").read_text()


class TestLinks:
    def test_one_that_leads_nowhere_stops_the_build(self) -> None:
        with pytest.raises(PluginError, match="at none"):
            tool("docs_site").relinked("[a](none.md)", source=DOCS / "index.md", page="index.md")

    def test_a_section_that_the_readme_lacks_stops_the_build(self) -> None:
        with pytest.raises(PluginError, match="#nowhere"):
            tool("docs_site").section("nowhere", page="index.md")

    def test_a_file_of_settings_leads_to_its_page_and_a_folder_to_words(self) -> None:
        text = "[a](../configs/control/guard.yaml) [`zoo`](../configs/zoo) [b](https://x.org)"
        found = tool("docs_site").relinked(text, source=DOCS / "control.md", page="control.md")
        assert found == "[a](files/configs/control/guard.yaml.md) `zoo` [b](https://x.org)"

    def test_bars_of_code_in_a_table_are_read_as_on_github(self) -> None:
        found = tool("docs_site").relinked("| `a\\|b` | c |", source=DOCS / "index.md", page="index.md")
        assert found == "| `a|b` | c |"

    def test_code_stays_as_it_is(self) -> None:
        text = "```python\na = b[c](none.md)\n```"
        assert tool("docs_site").relinked(text, source=DOCS / "index.md", page="index.md") == text


def test_search_works_on_a_page_opened_from_a_folder(site: Path) -> None:
    chromium()
    field = "document.querySelector('[data-md-component=search-query]')"
    with Page((site / "index.html").as_uri()) as page:
        page.until("document.readyState === 'complete'")
        page.evaluate(f"{field}.focus()")
        page.evaluate(f"{field}.value = 'visibility'; {field}.dispatchEvent(new Event('keyup'))")
        page.until("document.querySelectorAll('.md-search-result__item').length > 0", seconds=60)
        asked = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name).join(' ')")
        assert [name for name in asked.split() if not name.startswith(("file:", "data:"))] == []


@pytest.mark.slow
def test_docstrings_of_all_modules_build_strictly(tmp_path: Path) -> None:
    whole = built(tmp_path)
    assert "block-causal over time" in (whole / "reference" / "model" / "visibility.html").read_text()
