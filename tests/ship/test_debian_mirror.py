"""Where other Debian releases come from: the mirror in the configuration of this machine's apt."""

from pathlib import Path

import pytest

from tests.support.debian import debootstrap, find_mirror
from tests.support.http_server import LocalServer, SilentHandler


class _Empty(SilentHandler):
    """A mirror without any release."""

    def do_HEAD(self) -> None:
        self.send_error(404)


@pytest.fixture
def apt_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only file in which apt finds repositories."""
    sources, settings = tmp_path / "sources.list", tmp_path / "apt.conf"
    settings.write_text(f'Dir::Etc::sourcelist "{sources}";\nDir::Etc::sourceparts "-";\n')
    monkeypatch.setenv("APT_CONFIG", str(settings))
    return sources


def test_the_mirror_is_the_one_that_apt_takes_debians_packages_from(apt_sources: Path) -> None:
    apt_sources.write_text(
        "deb http://mirror.invalid/debian-security trixie-security main\n"
        "deb http://mirror.invalid/others trixie main\n"
        "deb http://mirror.invalid/debian/ trixie main\n"
    )
    assert find_mirror() == "http://mirror.invalid/debian"


def test_an_apt_without_debians_packages_leaves_the_mirror_to_debootstrap(apt_sources: Path) -> None:
    apt_sources.write_text("deb http://mirror.invalid/ubuntu noble main\n")
    assert find_mirror() == ""


def test_a_mirror_that_cannot_be_reached_is_named_with_the_place_to_correct_it(
    apt_sources: Path, free_port: int, tmp_path: Path
) -> None:
    apt_sources.write_text(f"deb http://127.0.0.1:{free_port}/debian trixie main\n")
    with pytest.raises(AssertionError, match=rf"cannot be reached: http://127\.0\.0\.1:{free_port}/.*sources\.list"):
        debootstrap("trixie", tmp_path / "root", packages=[])


def test_a_release_that_the_mirror_lacks_is_named(apt_sources: Path, tmp_path: Path) -> None:
    with LocalServer(_Empty) as mirror:
        apt_sources.write_text(f"deb {mirror.origin}/debian trixie main\n")
        with pytest.raises(AssertionError, match=r"does not give the release 'trixy': .*404"):
            debootstrap("trixy", tmp_path / "root", packages=[])
