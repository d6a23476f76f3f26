"""What is in the image, and what is not."""

import re
import subprocess
import sys

import pytest

from tests.support.containers import BASE_PYTHON, LOCKED_DOWN, REVISION, VERSION, ContainerTools, Image
from tests.support.debian import REPOSITORY

# Building it is not what the limit is for.
pytestmark = pytest.mark.timeout(120, func_only=True)

_HOME = "/opt/payment-callbacks"


@pytest.fixture
def run_in(container_tools: ContainerTools, image: Image) -> "RunIn":
    return RunIn(container_tools, image)


class RunIn:
    """Runs commands in containers of the image."""

    def __init__(self, tools: ContainerTools, image: Image) -> None:
        self._tools = tools
        self._image = image

    def __call__(self, *command: str) -> str:
        return self._tools.podman("run", "--rm", *LOCKED_DOWN, self._image.name, *command)

    def program(self, program: str, *arguments: str) -> str:
        """Run something else than the entry point."""
        options = (*LOCKED_DOWN, f"--entrypoint={program}")
        return self._tools.podman("run", "--rm", *options, self._image.name, *arguments)


def test_it_runs_every_role_by_the_command_lines_own_name_and_without_a_shell(image: Image) -> None:
    assert image.config["Entrypoint"] == ["payment-callbacks"]
    assert image.config["Cmd"] == ["--help"]


def test_its_default_base_is_pinned_to_the_python_of_the_tests_and_to_its_content() -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)$", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)
    assert re.fullmatch(rf"python:{re.escape(BASE_PYTHON)}\.\d+-slim-bookworm@sha256:[0-9a-f]{{64}}", base)


def test_it_shows_what_it_can_do_when_it_is_told_nothing(run_in: RunIn) -> None:
    assert "Usage: payment-callbacks" in run_in()


def test_it_runs_as_a_number_that_is_not_root(image: Image, run_in: RunIn) -> None:
    assert image.config["User"] == "10001:10001"
    assert run_in.program("id", "--user", "--name").strip() == "payment-callbacks"


def test_its_labels_say_what_it_was_made_of(image: Image) -> None:
    labels = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in image.config["Labels"].items()
        if name.startswith("org.opencontainers.image.")
    }
    assert labels.pop("description")
    assert labels == {
        "title": "payment-callbacks",
        "version": VERSION,
        "revision": REVISION,
        "created": image.created,
        "base.name": image.base,
    }


def test_it_holds_the_locked_releases_and_our_own_wheel_and_nothing_else(run_in: RunIn) -> None:
    listing = "import importlib.metadata as m; print(*{d.name.lower().replace('_', '-') for d in m.distributions()})"
    installed = run_in.program("python", "-c", listing).split()
    names = ("postgresql.txt", "otel.txt", "oidc.txt")
    text = "".join((REPOSITORY / "requirements" / name).read_text() for name in names)
    locked = {line.partition("==")[0] for line in text.splitlines() if "==" in line}
    # Those that other platforms or releases of Python need are locked as well.
    assert set(installed) <= (locked - {"setuptools"}) | {"payment-callbacks"}
    assert {"payment-callbacks", "psycopg", "psycopg-binary", "gunicorn", "opentelemetry-sdk", "authlib"} <= set(
        installed
    )


@pytest.mark.parametrize("module", ["pip", "setuptools", "wheel"])
@pytest.mark.parametrize("python", ["python", "/usr/bin/python3"])
def test_it_can_install_nothing(run_in: RunIn, python: str, module: str) -> None:
    find = f"import importlib.util; print(importlib.util.find_spec({module!r}))"
    assert run_in.program(python, "-c", find).strip() == "None"


def test_it_holds_no_compiler_no_cache_and_no_source_tree(run_in: RunIn) -> None:
    left_over = "/usr/bin/gcc* /usr/bin/cc /usr/bin/make /root/.cache /source /wheel /opt/pip /mnt/*"
    assert run_in.program("sh", "-c", f"ls -d {left_over} 2>/dev/null || true") == ""


def test_nothing_in_it_belongs_to_its_user_but_the_data_folder(run_in: RunIn) -> None:
    find = "find / -xdev -user 10001 -not -path '/proc/*' 2>/dev/null || true"
    assert run_in.program("sh", "-c", find).split() == ["/var/lib/payment-callbacks"]
    assert run_in.program("find", _HOME, "-perm", "-o+w", "-not", "-type", "l") == ""


def test_its_modules_are_compiled_since_it_cannot_keep_what_it_compiles_itself(run_in: RunIn) -> None:
    count = "import pathlib, service; print(len(list(pathlib.Path(service.__file__).parent.rglob('*.pyc'))))"
    assert int(run_in.program("python", "-c", count)) > 100


def test_it_checks_settings_as_the_working_tree_does(run_in: RunIn) -> None:
    here = subprocess.run(
        [sys.executable, "-m", "service.cli", "config", "example"], capture_output=True, text=True, check=True
    )
    assert run_in("config", "example") == here.stdout
