"""Pin what set-up installs: write constraints/py*.txt and tools/*/package-lock.json.

Run it by hand to take up new releases, then run the suite and commit what changed:

    python3 scripts/pin.py            # every Python that the machine has, Azurite and azcopy
    python3 scripts/pin.py python3.11 # one of them

The files hold names and versions, never an address: where packages come from is the business of
the machine that installs them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import set_up

EXTRAS = "fleet,dask,ray,dev,bench"
HEADER = (
    "# Versions that the suite passes with, on Python {version}; written by scripts/pin.py.\n"
    "# Names and versions only: no addresses.\n"
)


def build_requirements() -> list[str]:
    """What builds azpool itself, from pyproject.toml."""
    text = (set_up.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r"^requires = (\[.*\])$", text, re.MULTILINE)
    assert found, "pyproject.toml names no build requirements"
    required: list[str] = json.loads(found[1])
    return required


def pin_python(python: Path) -> None:
    """Resolve every extra on `python` and write its constraints file."""
    version = set_up.python_version(python)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        venv = Path(folder) / "venv"
        set_up.make_venv(python, venv)
        set_up.run(
            [
                *(venv / "bin/python", "-m", "pip", "install", "--quiet", "--dry-run"),
                *("--ignore-installed", "--report", report),
                *(f"{set_up.ROOT}[{EXTRAS}]", *build_requirements()),
            ]
        )
        installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    pins = sorted(
        f"{package['metadata']['name'].lower().replace('_', '-')}=={package['metadata']['version']}"
        for package in installed
        if package["metadata"]["name"] != "azpool"
    )
    target = set_up.constraints_file(version)
    target.parent.mkdir(exist_ok=True)
    target.write_text(HEADER.format(version=version) + "\n".join(pins) + "\n", encoding="utf-8")
    print(f"{target.relative_to(set_up.ROOT)}: {len(pins)} packages")


def pin_npm(tool: str) -> None:
    """Resolve a tool's packages and write its lock file without addresses."""
    source = set_up.npm_source(tool)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("package.json", ".npmrc"):
            shutil.copy(source / name, folder)
        set_up.npm(["install", "--package-lock-only", "--omit=dev"], Path(folder))
        lock = json.loads((Path(folder) / "package-lock.json").read_text(encoding="utf-8"))
    target = source / "package-lock.json"
    target.write_text(json.dumps(without_addresses(lock), indent=2) + "\n", encoding="utf-8")
    print(f"{target.relative_to(set_up.ROOT)}: {len(lock['packages']) - 1} packages")


def without_addresses(lock: dict[str, Any]) -> dict[str, Any]:
    """Keep of each package what installing needs: version, checksum, place in the tree."""
    for package in lock["packages"].values():
        for key in ("resolved", "funding", "license", "deprecated"):
            package.pop(key, None)
    return lock


def main() -> None:
    """Pin for the Pythons named on the command line, or for everything."""
    named = [Path(shutil.which(name) or name) for name in sys.argv[1:]]
    for python in named or [Path(sys.executable), *set_up.other_pythons()]:
        pin_python(python)
    if not named:
        for tool in (set_up.AZURITE, set_up.AZCOPY):
            pin_npm(tool)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
