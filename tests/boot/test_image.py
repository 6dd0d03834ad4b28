"""The image, judged by the tools of others; no machine is started."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.host import block_devices
from appliance.payload import average_for, chunk_hash, cut
from appliance.update.os_payload import HEADER_SIZE, decode_header
from tests.boot.versions import HOUSE, take_image

TOOLS = ("fsck.erofs", "veritysetup", "sfdisk", "mkfs.vfat", "mcopy", "mkfs.ext4")
pytestmark = [
    pytest.mark.qemu,
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


def change_module(staged: Path) -> None:
    """One of ours is longer than before, and another one new."""
    more = hashlib.shake_256(b"more of it").digest(9000)
    module = staged / "_internal/appliance/cli/__init__.pyc"
    module.write_bytes(module.read_bytes() + more)
    (staged / "_internal/appliance/api/brand_new.pyc").write_bytes(more[:7000])


def import_more(staged: Path) -> None:
    """It also needs a module of Python that nobody needed before: all behind it in the program's archive moves."""
    change_module(staged)
    program = staged / "appliance"
    data = program.read_bytes()
    middle = len(data) // 2
    program.write_bytes(data[:middle] + data[-1_020_003:-1_000_000] + data[middle:])


@pytest.mark.parametrize(("change", "most"), [(change_module, 0.03), (import_more, 0.06)])
def test_a_change_of_ours_changes_little(tmp_path: Path, change: Callable[[Path], None], most: float) -> None:
    """Of what a machine downloads: the chunks that the version before does not have (appliance/payload)."""
    from image.build import build_parts, write_payload  # type: ignore[import-not-found]
    from pack import FOOTER  # type: ignore[import-not-found]

    staged = tmp_path / "staged"
    shutil.copytree(HOUSE / ".build/staged", staged, symlinks=True)
    change(staged)
    binary, data = tmp_path / "other", (HOUSE / "dist/appliance").read_bytes()
    offset, packed, unpacked, _, _, magic = FOOTER.unpack(data[-FOOTER.size :])
    binary.write_bytes(data[: -FOOTER.size] + FOOTER.pack(offset, packed, unpacked, b"0f" * 32, b"1.2.4", magic))
    new = tmp_path / "new.os"
    write_payload(new, build_parts(tmp_path / "root", version="1.2.4", binary=binary, staged=staged, fast=True))
    write_payload(tmp_path / "old.os", take_image(marked=False).parts)
    here = {chunk_hash(chunk) for chunk in chunks(tmp_path / "old.os")}
    lacking = [chunk for chunk in chunks(new) if chunk_hash(chunk) not in here]
    share = sum(map(len, lacking)) / new.stat().st_size
    print(f"{len(lacking)} chunks, {share:.2%} of {new.stat().st_size / 1e6:.1f} MB")
    assert share < most
    for path in tmp_path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def chunks(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return [chunk for _, chunk in cut(lambda at, size: data[at : at + size], len(data), average=average_for(len(data)))]


def test_the_file_system_gives_back_what_went_into_it(tmp_path: Path) -> None:
    """Lengths around a block, what can be compressed and what cannot, names that fill several blocks."""
    from image.erofs import write_erofs  # type: ignore[import-not-found]

    tree, noise = tmp_path / "tree", hashlib.shake_256(b"noise").digest(600_001)
    (tree / "many/deep/down").mkdir(parents=True)
    for number in range(700):
        (tree / f"many/a-file-of-the-number-{number}").write_text(f"{number}" * number)
    for length in (0, 1, 4095, 4096, 4097, 8191, 8192, 8193, 262_143, 262_144, 262_145, 600_001):
        (tree / f"zeros-{length}").write_bytes(bytes(length))
        (tree / f"noise-{length}").write_bytes(noise[:length])
        (tree / f"both-{length}").write_bytes((noise[:5000] + bytes(7000) + b"words " * 3000)[:length] * 3)
    (tree / "link").symlink_to("many/deep")
    (tree / "long").symlink_to("/".join(["x" * 100] * 40))
    for fast in (False, True):
        image, out = tmp_path / f"image-{fast}", tmp_path / f"out-{fast}"
        write_erofs(
            tree, image, identity=uuid.UUID(int=5), epoch=1700000000, late=lambda path: "many" in path, fast=fast
        )
        run("fsck.erofs", f"--extract={out}", image)
        run("diff", "-r", "--no-dereference", tree, out)
        point = tmp_path / f"mounted-{fast}"
        point.mkdir()
        mounted = subprocess.run(["mount", "-t", "erofs", "-o", "loop,ro", image, point], capture_output=True)
        if mounted.returncode == 0:  # where the kernel knows it: that is who has to read it
            try:
                run("diff", "-r", "--no-dereference", tree, point)
            finally:
                run("umount", point)


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
    assert float(next((tree / "usr/lib/appliance").glob("*/BUILT")).read_text()) > 1_700_000_000


@pytest.mark.skipif(not shutil.which("sbsign"), reason="needs sbsigntool")
def test_signed_with_own_keys(place: Path, image: Path) -> None:
    key, certificate = place / "db.key", place / "db.crt"
    run(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=ours", "-days", "3650",
        "-keyout", key, "-out", certificate,
    )  # fmt: skip
    from image.build import sign  # type: ignore[import-not-found]
    from image.disk import LOADER  # type: ignore[import-not-found]
    from image.uki import sum_image  # type: ignore[import-not-found]

    for program in (image.with_suffix(".efi"), LOADER):
        signed = place / "signed.efi"
        signed.write_bytes(sign(program.read_bytes(), key, certificate))
        run("sbverify", "--cert", certificate, signed)
        assert sum_image(signed.read_bytes()) == sum_image(program.read_bytes()), "what its command line names"
        assert subprocess.run(["sbverify", "--cert", certificate, program], capture_output=True).returncode != 0
