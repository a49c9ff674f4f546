"""What no tracked file may hold: addresses of package registries, paths of someone's machine."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# In pieces, so that this file doesn't find itself.
FORBIDDEN = {
    "the host of a package registry": re.compile(
        r"pypi\.(org|python)|files\.pythonhosted|registry\.(npmjs|yarnpkg)"
        r"|deb\.debian|npmjs\.(org|com)|proxy\.golang|crates\.io"
    ),
    "a path of one machine": re.compile(
        r"(?<![\w.])/(work|root|home/\w+|Users/\w+|opt/(pypi|wheels))/"
    ),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}  # fmt: skip


def tracked_files():
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return []
    return [ROOT / name for name in listed.stdout.split("\0") if name]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_tracked_file_holds(what):
    files = tracked_files()
    if not files:
        pytest.skip("not a git checkout, or no git")
    found = []
    for file in filter(Path.is_file, files):
        text = file.read_bytes().decode("utf-8", "replace")
        for number, line in enumerate(text.splitlines(), 1):
            if FORBIDDEN[what].search(line):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, f"{what}:\n" + "\n".join(found)


def test_pinned_versions_hold_no_addresses():
    lines = [
        line
        for file in (ROOT / "constraints").glob("*.txt")
        for line in file.read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9.-]+==[\w.+!]+", line)] == []
    locks = [*(ROOT / "tools").glob("*/package*.json")]
    assert locks
    assert [str(lock) for lock in locks if "://" in lock.read_text(encoding="utf-8")] == []


def test_every_folder_of_the_package_is_a_package():
    folders = {file.parent for file in (ROOT / "src").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_every_decision_is_in_the_list():
    folder = ROOT / "docs" / "decisions"
    listed = (folder / "README.md").read_text(encoding="utf-8")
    assert [file.name for file in folder.glob("0*.md") if f"({file.name})" not in listed] == []


CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")


def pages():
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page):
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    targets = LINK.findall(text)
    assert [target for target in targets if not (page.parent / target).exists()] == []
