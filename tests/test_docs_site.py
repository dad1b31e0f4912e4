"""The documentation site builds strictly, every page is within reach; formulas and search need no network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from browser import Browser

ROOT = Path(__file__).resolve().parents[1]
FORMULAS = ("learners/metric-based.html", "tutorials/03_comparing_learners.html")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    for needed in ("material", "mkdocstrings", "nbconvert"):
        pytest.importorskip(needed, reason="the extra 'docs' is not installed")
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_every_page_is_in_the_navigation():
    # The file names classes by YAML tags; here only the names of pages matter.
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = str(yaml.safe_load(text[text.index("nav:") :])["nav"])
    for page in (ROOT / "docs").rglob("*.md"):
        assert f"'{page.relative_to(ROOT / 'docs').as_posix()}'" in listed


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "tutorials/README.md", "lab/notes/*.md"])
def test_links_outside_of_the_site_lead_somewhere(page):
    for path in ROOT.glob(page):
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
            assert "://" in target or (path.parent / target).exists(), f"{path.name}: {target}"


def test_pages_made_from_docstrings_and_notebooks(site):
    commands = (site / "command_line.html").read_text(encoding="utf-8")
    assert "medfewshot segment" in commands
    assert "--support-dir" in commands
    assert "130" in commands
    settings = (site / "settings.html").read_text(encoding="utf-8")
    assert "budget_seconds" in settings
    assert "--budget" in settings
    reference = (site / "api.html").read_text(encoding="utf-8")
    for name in ("medfewshot.api.adapt", "medfewshot.integrations.FewShotSegmentd", "medfewshot.learners.maml.Maml"):
        assert f'id="{name}"' in reference
    assert not re.search(r":(class|func|meth|data):|&lt;autoref", reference)
    assert len(list((site / "tutorials").glob("*.html"))) == len(list((ROOT / "tutorials").glob("*.ipynb")))


def test_formulas_are_set_and_nothing_is_fetched(site, chromium):
    with Browser(chromium) as browser:
        for page in FORMULAS:
            browser.open(site / page)
            count = "document.querySelectorAll('{}').length"
            assert browser.ask(count.format(".arithmatex")) > 20
            assert browser.ask(count.format(".arithmatex:not(:has(.katex))")) == 0
            assert browser.ask(count.format(".katex-error")) == 0
        browser.wait("document.fonts.status === 'loaded'")
        assert browser.ask("document.fonts.check('12px KaTeX_Main')")
        assert browser.problems == []


def test_search_works_from_a_disk(site, chromium):
    with Browser(chromium) as browser:
        browser.open(site / "index.html")
        browser.ask("document.querySelector('[data-md-toggle=search]').click()")
        browser.ask("document.querySelector('.md-search__input').value = 'contrast agent'")
        browser.ask("document.querySelector('.md-search__input').dispatchEvent(new Event('keyup', {bubbles: true}))")
        browser.wait("document.querySelectorAll('.md-search-result__item').length > 0")
        assert browser.problems == []
