"""`import azpool` stays light, and loads nothing of Azure."""

import subprocess
import sys

import pytest

HEAVY = ["azure", "numpy", "pydantic", "pyreqwest", "rich", "typer", "urllib3", "http.client"]


def modules_after(code):
    """The modules that a fresh interpreter has loaded after `code`."""
    code += "\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=50
    )
    return done.stdout.split()


def loaded(modules, package):
    return [name for name in modules if name == package or name.startswith(package + ".")]


@pytest.fixture(scope="module")
def modules():
    return modules_after("import azpool")


@pytest.mark.parametrize("package", HEAVY)
def test_import_azpool_does_not_load(modules, package):
    assert not loaded(modules, package)


def test_import_azpool_loads_no_storage_and_no_fleet(modules):
    assert not loaded(modules, "azpool.storage")
    assert not loaded(modules, "azpool.fleet")
    assert not loaded(modules, "azpool.cli")


@pytest.mark.parametrize("name", ["azpool.errors", "azpool.report", "azpool.pool"])
def test_module_of_the_lower_layers_imports_alone(name):
    modules = modules_after(f"import {name}")
    assert not loaded(modules, "azure")
    assert not loaded(modules, "azpool.storage")


@pytest.mark.parametrize(
    "code", ["import azpool.storage", "import azpool.identity", "from azpool.identity import share"]
)
def test_imports_load_no_azure_sdk(code):
    assert not loaded(modules_after(code), "azure")


def test_every_public_name_is_there():
    import azpool

    assert [name for name in azpool.__all__ if not hasattr(azpool, name)] == []
    assert len(set(azpool.__all__)) == len(azpool.__all__)


def test_version_is_a_version():
    import azpool
    from azpool._version import __version__

    assert __version__.count(".") == 2
    assert getattr(azpool, "__version__", __version__) == __version__
