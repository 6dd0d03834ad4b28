"""Secure Boot with own keys in the firmware: what we signed starts, what was altered or never signed does not."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.boot.firmware import GLOBAL, add_variables
from tests.boot.versions import BINARY, take_image
from tests.boot.vm import VARIABLES, VM

SECURE = Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")
pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64") or not SECURE.exists(), reason="needs QEMU and OVMF"),
    pytest.mark.skipif(not BINARY.exists(), reason="needs dist/appliance: ./build.sh"),
    pytest.mark.skipif(not shutil.which("sbsign"), reason="needs sbsigntool"),
]
SECURITY = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
ENABLE = uuid.UUID("f0a30bc7-af08-4556-99c4-001009c93a44")
X509, OWNER = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072"), uuid.UUID(int=7)
KEPT, BOOT_ONLY, AUTHENTICATED = 1, 2, 0x27
# The firmware's own memory is out of the kernel's reach, as Secure Boot wants it.
MACHINE = ["-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"]
LONG = 240.0


def certificates(der: bytes) -> bytes:
    """An EFI_SIGNATURE_LIST of one."""
    return X509.bytes_le + struct.pack("<III", 28 + 16 + len(der), 0, 16 + len(der)) + OWNER.bytes_le + der


def enroll(out: Path, der: bytes) -> None:
    """The firmware's variables, with one certificate of ours in every role: platform, exchange, signatures."""
    lists = certificates(der)
    wanted = (
        ("db", SECURITY, AUTHENTICATED, lists), ("KEK", GLOBAL, AUTHENTICATED, lists),
        ("PK", GLOBAL, AUTHENTICATED, lists), ("SecureBootEnable", ENABLE, KEPT | BOOT_ONLY, b"\1"),
    )  # fmt: skip
    out.write_bytes(add_variables(VARIABLES.read_bytes(), wanted))


@dataclass(frozen=True)
class Signed:
    """One version, as it is built with and without --sign-key."""

    work: Path
    certificate: bytes
    root: Path
    unsigned: bytes
    kernel: bytes
    loader: bytes


@pytest.fixture(scope="module")
def signed() -> Iterator[Signed]:
    from image.build import sign  # type: ignore[import-not-found]
    from image.disk import LOADER  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory(prefix="secure-boot-") as place:
        work = Path(place)
        key, certificate, der = work / "db.key", work / "db.crt", work / "db.der"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=ours", "-days", "3650"]
        subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        subprocess.run(["openssl", "x509", "-in", certificate, "-outform", "DER", "-out", der], check=True)
        parts = take_image().parts
        kernel, loader = sign(parts.uki, key, certificate), sign(LOADER.read_bytes(), key, certificate)
        yield Signed(work, der.read_bytes(), parts.root.file, parts.uki, kernel, loader)


def power_on(signed: Signed, name: str, kernel: bytes, monkeypatch: pytest.MonkeyPatch) -> VM:
    from image.disk import build_disk

    disk = signed.work / f"{name}.img"
    build_disk(disk, root=signed.root, uki=kernel, entry="appliance_1.0.0.good+3.efi", loader=signed.loader)
    enroll(signed.work / f"{name}.vars", signed.certificate)
    monkeypatch.setattr("tests.boot.vm.CODE", SECURE)
    return VM(disk, signed.work, name=name, extra=MACHINE).start()


def test_what_we_signed_starts(signed: Signed, monkeypatch: pytest.MonkeyPatch) -> None:
    vm = power_on(signed, "whole", signed.kernel, monkeypatch)
    try:
        vm.wait(r"appliance: version 1\.0\.0, slot a", LONG)
    finally:
        vm.put_away()


@pytest.mark.parametrize("what", ["unsigned", "altered"])
def test_what_we_did_not_sign_is_refused(what: str, signed: Signed, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = bytearray(signed.kernel if what == "altered" else signed.unsigned)
    if what == "altered":  # a word of the command line that has no meaning: without Secure Boot it would start
        at = kernel.index(b"loglevel=4")
        kernel[at : at + 10] = b"loglevel=7"
    vm = power_on(signed, what, bytes(kernel), monkeypatch)
    try:
        vm.wait(r"(?i)access denied|security violation", LONG)
        assert not [line for line in vm.lines if "appliance: version" in line or "Linux version" in line]
    finally:
        vm.put_away()
