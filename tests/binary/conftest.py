"""The built file, and copies of it that are other versions."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]
sys.path.append(str(HOUSE / "packaging"))
import pack  # noqa: E402

from tests.binary.fake import Host  # noqa: E402


@pytest.fixture(scope="session")
def built() -> Path:
    """dist/appliance, built when its sources have changed."""
    subprocess.run([HOUSE / "build.sh"], check=True)
    return HOUSE / "dist/appliance"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the built files unpack during this session, instead of /var/cache/appliance."""
    path = tmp_path_factory.mktemp("cache")
    path.chmod(0o755)
    before = os.environ.get("APPLIANCE_CACHE")
    os.environ["APPLIANCE_CACHE"] = str(path)
    yield path
    if before is None:
        del os.environ["APPLIANCE_CACHE"]
    else:
        os.environ["APPLIANCE_CACHE"] = before


@pytest.fixture(scope="session")
def binary(built: Path, cache: Path) -> Path:
    """dist/appliance; what is started in this session unpacks below a temporary directory."""
    return built


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C program that stands in for ours where only the launcher is looked at, and the launcher itself."""
    subprocess.run([HOUSE / "packaging/launcher/build.sh", "launcher"], check=True)
    path = tmp_path_factory.mktemp("program") / "appliance"
    subprocess.run(["gcc", "-O1", "-static", "-s", "-o", path, Path(__file__).parent / "program.c"], check=True)
    return path


@pytest.fixture
def host(tmp_path: Path, program: Path) -> Iterator[Host]:
    """A host in a directory, for the fake program."""
    host = Host(tmp_path, program)
    yield host
    host.close()


MakeVariant = Callable[..., Path]


@pytest.fixture(scope="session")
def make_variant(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeVariant:
    """``make_variant("2.0")`` -> the path of a file that is the same program under another version.

    ``break_import=True``: ``run`` cannot even import itself; ``--version`` still answers.
    ``code={"appliance.x.y": SOURCE}`` replaces modules of ours.
    ``added`` / ``removed`` are paths inside the bundle, see .build/staged.
    """
    made = tmp_path_factory.mktemp("variants")

    def make(
        version: str,
        *,
        break_import: bool = False,
        code: Mapping[str, str] = {},
        added: Mapping[str, bytes] = {},
        removed: tuple[str, ...] = (),
        out: Path | None = None,
    ) -> Path:
        files = {**added, **{module_path(name): compiled(name, text) for name, text in code.items()}}
        if break_import:
            files[module_path("appliance.app")] = compiled("appliance.app", "import a_module_that_nobody_has_written")
        path = out or made / f"{len(list(made.iterdir()))}" / f"appliance-{version}"
        pack.pack(pack.HOUSE / ".build/staged", path, version=version, level=1, added=files, removed=removed)
        return path

    return make


def module_path(name: str) -> str:
    """Where the bundle holds one of our modules, or would."""
    plain = "_internal/" + name.replace(".", "/")
    package = f"{plain}/__init__.pyc"
    return package if (pack.HOUSE / ".build/staged" / package).exists() else plain + ".pyc"


def compiled(name: str, text: str) -> bytes:
    """A .pyc of the text, by the Python that the bundle holds."""
    import importlib._bootstrap_external as external
    import importlib.util

    assert sys.version_info[:2] == (3, 11)
    code = compile(text, name, "exec", optimize=2)
    return bytes(external._code_to_hash_pyc(code, importlib.util.source_hash(text.encode()), False))  # type: ignore[attr-defined]
