"""Every example in README and docs runs, and every file in examples/.

The Python blocks of a page are one script, run from top to bottom by an interpreter of its own in
an empty folder, with an environment that points at Azurite. Around them:

    ```pycon                   a session with its output: checked by doctest
    ```console                 lines that begin with `$ ` run in a shell between the Python blocks
    <!-- no-test: reason -->   before a block: it can't run here
    <!-- run                   code that readers don't need: makes the files that a page uses
    -->
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

BLOCK = re.compile(
    r"^(?P<skip><!-- no-test: [^\n]+ -->\n\s*)?"
    r"^(?:```(?P<language>python|pycon|console)\n(?P<code>.*?)^```$"
    r"|<!-- run\n(?P<hidden>.*?)^-->$)",
    re.MULTILINE | re.DOTALL,
)

# What the blocks other than Python become in the page's script.
SHELL = "import subprocess; subprocess.run({!r}, shell=True, check=True, executable='/bin/bash')"
SESSION = (
    "import doctest; _t = doctest.DocTestParser().get_doctest({!r}, globals(), 'page', None, {});"
    " assert not doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(_t, clear_globs=False)"
    ".failed, 'see the output above'"
)
# Compiled under the page's name, as `__main__`: tracebacks show the line in the page.
RUNNER = (
    "import sys; _script = sys.stdin.read(); sys.stdin.close(); "
    "exec(compile(_script, sys.argv[1], 'exec'))"
)


def script_of(text):
    """The script that runs a page's blocks, each on the lines where it stands; '' if none."""
    lines = []
    for found in BLOCK.finditer(text):
        if found["skip"]:
            continue
        part = "code" if found["code"] is not None else "hidden"
        code = found[part]
        if found["language"] == "console":
            commands = [line[2:] for line in code.splitlines() if line.startswith("$ ")]
            code = SHELL.format("\n".join(["set -e", *commands]))
        elif found["language"] == "pycon":
            code = SESSION.format(code, text.count("\n", 0, found.start(part)))
        before = text.count("\n", 0, found.start(part))
        lines += [""] * (before - len(lines))
        lines += code.splitlines()
    return "\n".join(lines)


def run(arguments, folder, azurite, script=""):
    environment = {
        **os.environ,
        "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONWARNINGS": "error",
        "AZPOOL_STATE_HOME": f"{folder}-state",  # journals of transfers, not the user's own
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        input=script,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def pages_with_examples():
    """Pages, of which the newest Python too runs the first that users read."""
    for page in PAGES:
        if script_of(page.read_text(encoding="utf-8")):
            name = str(page.relative_to(ROOT))
            marks = () if name == "README.md" else (pytest.mark.once,)
            yield pytest.param(page, id=name, marks=marks)


@pytest.mark.parametrize("page", list(pages_with_examples()))
def test_page_runs(page, tmp_path, azurite):
    script = script_of(page.read_text(encoding="utf-8"))
    run(["-c", RUNNER, str(page.relative_to(ROOT))], tmp_path, azurite, script)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example_runs(example, tmp_path, azurite):
    run([str(example)], tmp_path, azurite)


PAGE = """\
# A page

<!-- run
made = 1
-->

```python
made += 1
```

<!-- no-test: there is no such module -->
```python
import nonsense
```

```console
$ true
what it says
```

```pycon
>>> made
2
```

```sh
not run
```
"""


def test_blocks_of_a_page_make_one_script_with_the_page_s_lines():
    lines = script_of(PAGE).splitlines()
    assert lines[PAGE.splitlines().index("made += 1")] == "made += 1"
    assert "nonsense" not in script_of(PAGE)
    assert "not run" not in script_of(PAGE)
    assert "what it says" not in script_of(PAGE)


def test_script_of_a_page_runs(tmp_path, azurite):
    run(["-c", RUNNER, "page.md"], tmp_path, azurite, script_of(PAGE))


@pytest.mark.parametrize(
    "block", ["```python\n1 / 0\n```\n", "```console\n$ false\n```\n", "```pycon\n>>> 1\n2\n```\n"]
)
def test_block_that_fails_fails_its_page(block, tmp_path, azurite):
    with pytest.raises(AssertionError):
        run(["-c", RUNNER, "page.md"], tmp_path, azurite, script_of(block))
