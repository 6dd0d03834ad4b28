"""The image, judged by the tools of others; no machine is started."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.host import block_devices
from appliance.update.os_payload import HEADER_SIZE, decode_header
from tests.boot.guest import HOUSE

sys.path[:0] = [str(HOUSE / "packaging")]
TOOLS = ("mkfs.erofs", "veritysetup", "sfdisk", "mkfs.vfat", "mcopy", "mkfs.ext4")
pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(not (HOUSE / "dist/appliance").exists(), reason="needs dist/appliance: ./build.sh"),
    pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(TOOLS)}"),
]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="image-") as place:
        yield Path(place)


def build(out: Path, *words: str) -> Path:
    """As `./build.sh image` does. Twice at the same place gives the same bytes."""
    command = [sys.executable, HOUSE / "packaging/image/build.py", "--out", out, "--version", "1.2.3", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / "appliance-1.2.3.img"


@pytest.fixture(scope="module")
def image(place: Path) -> Path:
    return build(place / "one")


@pytest.fixture(scope="module")
def parts(image: Path, place: Path) -> dict[str, Path]:
    """Each partition as a file."""
    found = {}
    for one in block_devices.read_table(str(image)).partitions:
        found[one.name] = place / f"{one.name}.part"
        with image.open("rb") as disk, found[one.name].open("wb") as out:
            disk.seek(one.start)
            for _ in range(one.size >> 20):
                piece = disk.read(1 << 20)
                out.seek(len(piece), 1) if not any(piece) else out.write(piece)
            out.truncate(one.size)
    return found


def run(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def test_small_enough(image: Path) -> None:
    assert image.stat().st_blocks * 512 < 120_000_000
    header = decode_header(image.with_suffix(".os").read_bytes()[:HEADER_SIZE])
    assert header.root_size < 70_000_000


def test_two_builds_are_the_same_bytes(image: Path, place: Path) -> None:
    again = build(place / "two")
    for suffix in (".img", ".os", ".efi", ".initrd", ".vmlinuz"):
        run("cmp", image.with_suffix(suffix), again.with_suffix(suffix))
    shutil.rmtree(place / "two")


def test_the_partition_table_is_sound(image: Path) -> None:
    assert "No errors detected" in run("sfdisk", "-V", image)
    table: dict[str, Any] = json.loads(run("sfdisk", "-J", image))["partitiontable"]
    assert table["label"] == "gpt"
    assert [one["name"] for one in table["partitions"]] == ["esp", "root-a", "root-b", "state"]
    assert table["partitions"][0]["type"] == "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"


def test_the_file_systems_are_sound(parts: dict[str, Path]) -> None:
    run("fsck.vfat", "-n", parts["esp"])
    run("e2fsck", "-fn", parts["state"])
    run("fsck.erofs", parts["root-a"])


def test_the_root_is_what_the_kernel_image_asks_for(image: Path, parts: dict[str, Path]) -> None:
    from image.uki import read_sections  # type: ignore[import-not-found]

    header = decode_header(image.with_suffix(".os").read_bytes()[:HEADER_SIZE])
    command_line = read_sections(image.with_suffix(".efi").read_bytes())[".cmdline"].decode()
    assert f"roothash={header.roothash}" in command_line
    blocks = command_line.split("appliance.verity=")[1].split(":")[0]
    root = parts["root-a"]
    run("veritysetup", "verify", root, root, header.roothash, f"--hash-offset={int(blocks) * 4096}")
    with root.open("r+b") as file:
        file.seek(3_000_000)
        byte = file.read(1)
        file.seek(3_000_000)
        file.write(bytes([byte[0] ^ 1]))
    command = ["veritysetup", "verify", root, root, header.roothash, f"--hash-offset={int(blocks) * 4096}"]
    assert subprocess.run(command, capture_output=True).returncode != 0


def test_the_esp_holds_what_starts(parts: dict[str, Path], image: Path, place: Path) -> None:
    listed = run("mdir", "-b", "-/", "-i", parts["esp"], "::")
    for name in ("EFI/BOOT/BOOTX64.EFI", "loader/loader.conf", "EFI/Linux/appliance_1.2.3.good+3.efi"):
        assert f"::/{name}" in listed
    run("mcopy", "-n", "-i", parts["esp"], "::EFI/Linux/appliance_1.2.3.good+3.efi", place / "uki")
    run("cmp", place / "uki", image.with_suffix(".efi"))


def test_nothing_but_ours_runs_from_the_root(place: Path, image: Path, parts: dict[str, Path]) -> None:
    """No shell, no package manager, no Python but ours."""
    tree = place / "tree"
    data = image.with_suffix(".os").read_bytes()
    header = decode_header(data[:HEADER_SIZE])
    (place / "root").write_bytes(data[HEADER_SIZE : header.kernel_at])
    run("fsck.erofs", f"--extract={tree}", place / "root")
    programs = sorted(path.name for folder in ("usr/bin", "usr/sbin") for path in (tree / folder).iterdir())
    assert programs == ["appliance", "e2fsck", "modprobe"]
    names = {path.name for path in tree.rglob("*") if path.is_file()}
    assert not names & {"sh", "bash", "dash", "busybox", "python3", "python3.11", "dpkg", "apt", "apt-get", "perl"}
    assert "VERSION_ID=1.2.3" in (tree / "etc/os-release").read_text()


@pytest.mark.skipif(not shutil.which("sbsign"), reason="needs sbsigntool")
def test_signed_with_own_keys(place: Path, image: Path) -> None:
    key, certificate = place / "db.key", place / "db.crt"
    run(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=ours", "-days", "3650",
        "-keyout", key, "-out", certificate,
    )  # fmt: skip
    from image.build import sign  # type: ignore[import-not-found]
    from image.disk import LOADER  # type: ignore[import-not-found]

    for program in (image.with_suffix(".efi"), LOADER):
        signed = place / "signed.efi"
        signed.write_bytes(sign(program.read_bytes(), key, certificate))
        run("sbverify", "--cert", certificate, signed)
        assert subprocess.run(["sbverify", "--cert", certificate, program], capture_output=True).returncode != 0
