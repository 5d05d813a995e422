"""The site is built from the pages as they stand, whole or not at all, and fetches nothing."""

import importlib.util
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import sockservice

ROOT = Path(__file__).parent.parent
#: Many, for others may have the processors.
PATIENCE = 600.0
MARKED = re.compile(r"<(?:img|link|script)\b[^>]*?\b(?:href|src)=\"([^\"]*)\"")

built = pytest.mark.skipif(
    any(importlib.util.find_spec(each) is None for each in ("furo", "myst_parser", "sphinx")),
    reason="the docs extra is not installed",
)


def build(
    folder: Path, site: Path, environment: str = sys.prefix
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [folder / "scripts" / "docs", site],
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "VENV": environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{folder}/index.html\n"
    return folder


@built
def test_it_opens_with_the_readme_which_leads_to_the_pages(site: Path) -> None:
    home = (site / "index.html").read_text()
    targets = re.findall(r"\]\((docs/\w+)\.md\)", (ROOT / "README.md").read_text())
    assert targets
    for target in targets:
        assert f'href="{target}.html"' in home
        assert (site / f"{target}.html").exists()


@built
def test_the_reference_describes_every_public_name(site: Path) -> None:
    reference = (site / "docs" / "api.html").read_text()
    names = [f"sockservice.{name}" for name in sockservice.__all__]
    for name in [*names, "sockservice.LineServer.answer", "sockservice.testing.Pair.ask"]:
        assert f'id="{name}"' in reference, name


@built
def test_a_browser_fetches_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    fetched = {target for page in pages for target in MARKED.findall(page.read_text())}
    assert any("furo.css" in target for target in fetched)
    assert [target for target in fetched if "//" in target] == []
    for style in site.rglob("*.css"):
        assert not re.search(r"@import|url\(['\"]?(https?:)?//", style.read_text()), style


@built
def test_each_page_that_is_wrong_fails_the_build(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for folder in ("docs", "scripts"):
        shutil.copytree(ROOT / folder, copy / folder)
    for file in ROOT.glob("*.md"):
        shutil.copy(file, copy)
    (copy / "docs" / "stray.md").write_text("# Stray\n")  # in no place
    (copy / "docs" / "client.md").write_text("# The client\n\n[Gone](gone.md)\n")
    done = build(copy, tmp_path / "site")
    assert done.returncode != 0
    for complaint in (r"docs/stray\.md.*any toctree", r"docs/client\.md:3: .*gone\.md"):
        assert re.search(complaint, done.stderr), done.stderr


def test_it_says_what_is_not_installed(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare")
    done = build(ROOT, tmp_path / "site", str(tmp_path / "bare"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "scripts/docs: the docs extra is not installed: .venv/bin/pip install -e '.[docs]'\n"
    )
