"""compose.yaml as it is meant: its services with what they share merged in, and its secrets made."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

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
