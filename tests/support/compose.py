"""compose.yaml: its services with what they share merged in, its secrets made, and its containers run by podman."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.containers import Container, ContainerTools

REPOSITORY = Path(__file__).parents[2]
COMPOSE_FILE = REPOSITORY / "compose.yaml"
#: What compose.yaml mounts.
FOLDER = REPOSITORY / "docs" / "compose"

#: Where containers see their secrets.
SECRETS = "/run/secrets"

Service = Mapping[str, Any]


def load_compose() -> Mapping[str, Any]:
    """The whole file."""
    document: Mapping[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8"))
    return document


def own_services() -> Mapping[str, Service]:
    """The services that run this project's image, by name."""
    return {name: service for name, service in load_compose()["services"].items() if "build" in service}


def make_secrets(folder: Path) -> Path:
    """Make them in `folder` as a person does in the working tree, and return where they are."""
    script = shutil.copy(FOLDER / "make-secrets", folder)
    subprocess.run([script], check=True)
    return folder / "secrets"


def settings_with(secrets: Path) -> str:
    """The settings' text, with the secrets where they are out here."""
    return (FOLDER / "payment-callbacks.toml").read_text(encoding="utf-8").replace(SECRETS, str(secrets))


class ComposeRun:
    """The services by name; `start` each, and `remove_all` in the end."""

    def __init__(self, *, tools: ContainerTools, image: str, secrets: Path, folder: Path) -> None:
        """Every container runs `image`, is given the files in `secrets`, and logs to `folder`."""
        self._tools = tools
        self._image = image
        self._secrets = secrets
        self._folder = folder
        self._document = load_compose()
        self._started: dict[str, Container] = {}

    def start(self, name: str) -> Container:
        """Start a service; returns at once."""
        service = own_services()[name]
        container = Container(
            *service["command"],
            name=f"compose-{name}",
            tools=self._tools,
            image=self._image,
            options=self._options(service),
            folder=self._folder,
        )
        self._started[name] = container
        container.start()
        return container

    @property
    def watched(self) -> list[str]:
        """The services that have a health check."""
        return [name for name, service in own_services().items() if "healthcheck" in service]

    def healthy(self, name: str) -> bool:
        """Whether the service's own health check says so right now."""
        kind, *command = own_services()[name]["healthcheck"]["test"]
        assert kind == "CMD"
        try:
            self._started[name].execute(*command)
        except AssertionError:
            return False
        return True

    def remove_all(self) -> None:
        """End every container."""
        for container in self._started.values():
            container.remove()

    def _options(self, service: Mapping[str, Any]) -> list[str]:
        options = ["--network=host", "--read-only-tmpfs=false", f"--user={service['user']}"]
        options += [f"--add-host={name}:127.0.0.1" for name in self._document["services"]]
        options += ["--read-only"] if service["read_only"] else []
        options += [f"--tmpfs={path}" for path in service["tmpfs"]]
        options += [f"--cap-drop={right}" for right in service["cap_drop"]]
        options += [f"--security-opt={option.removesuffix(':true')}" for option in service["security_opt"]]
        options += [f"--volume={self._secrets / name}:{SECRETS}/{name}:ro" for name in service["secrets"]]
        options += [f"--volume=compose-{volume}" for volume in service.get("volumes", [])]
        for config in service["configs"]:
            file = REPOSITORY / self._document["configs"][config["source"]]["file"]
            options.append(f"--volume={file}:{config['target']}:ro")
        if "entrypoint" in service:
            options.append(f"--entrypoint={json.dumps(service['entrypoint'])}")
        return options
