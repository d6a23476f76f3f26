"""What is shipped, as those who take it run it."""

from collections.abc import Iterator

import pytest

from tests.support.containers import ContainerTools, Image, build_image


@pytest.fixture(scope="session")
def container_tools() -> Iterator[ContainerTools]:
    """buildah and podman with a storage of their own."""
    with ContainerTools() as tools:
        yield tools


@pytest.fixture(scope="session")
def image(container_tools: ContainerTools) -> Image:
    """The image of the working tree, built once per run: give tests that use it `timeout(..., func_only=True)`."""
    return build_image(container_tools)
