"""What is written for readers: short enough, with links that lead somewhere, and of this version."""

import re

import pytest
import yaml
from bd_diff_toys import ROOT

import bd_diff

PAGES = [
    path
    for place in ("*.md", "assets/**/*.md", "bd_diff/assets/**/*.md", "configs/**/*.md")
    for path in sorted(ROOT.glob(place))
    if not any(parent.is_symlink() for parent in path.parents)
]
README = (ROOT / "README.md").read_text()


def prose(text: str) -> str:
    """A page without its blocks of code, where brackets mean something else."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", prose(text), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_is_short_and_starts_with_its_contents():
    assert len(README.split()) <= 1800
    headings = re.findall(r"^## (.+)$", README, re.M)
    contents = re.search(r"^\*\*Contents\*\*: (.*?)\n\n", README, re.M | re.S)[1]
    assert re.findall(r"\[(.+?)\]", contents) == headings


def test_the_readme_leads_to_every_page_of_the_documentation():
    for page in (ROOT / "assets/docs").glob("*.md"):
        assert f"](assets/docs/{page.name}" in README, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_are_there(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in anchors(target.read_text()), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_the_code_that_are_named_are_there(page):
    for path in re.findall(r"`((?:bd_diff|tests|train|configs)/[\w/.]+\.\w+)`", page.read_text()):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pictures_say_what_is_on_them(page):
    assert not re.findall(r"!\[\s*\]\(", page.read_text())


def test_every_place_names_this_version():
    version = bd_diff.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] == version
    assert f"version = {{{version}}}" in README
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()  # which is this one
