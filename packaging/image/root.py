"""The read-only root of a slot: our file, its program unpacked, kernel modules, fsck; erofs with a dm-verity tree.

An update fetches the chunks that changed, so little must change when one of our modules does: erofs.py lays the file
system out for that, and whatever a version's name would get into stays as it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path

from pack import FOOTER, INTERPRETER, LIBRARIES, built

from appliance.update.boot_entries import release_text
from image.disk import STATE_SIZE, make_state
from image.erofs import BLOCK, write_erofs
from image.kernel import Kernel, module_bytes, module_facts

EPOCH = 1700000000
NAMESPACE = uuid.UUID("6f1f9f0e-1c5b-4b60-8f1f-7d2f6a3b9a01")
DIRECTORIES = (
    "proc", "sys", "dev", "run", "tmp", "var", "boot", "mnt", "root", "etc/appliance", "etc/ssl/certs",
    "usr/bin", "usr/sbin", "usr/lib/appliance", "usr/lib/modules",
)  # fmt: skip
SALT = hashlib.sha256(b"appliance root").hexdigest()  # always the same: so is the hash of a block that did not change
PROGRAM = "/usr/lib/appliance/program"  # a link to the directory of this version: it is written into programs
# What no two versions have in common, by a part of its path.
LATE = ("etc/os-release", "usr/bin/appliance", "/VERSION", "/BUILT", "/_internal/appliance/")
FSCK = Path("/sbin/e2fsck.static")
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
# A host with no keyboard, no sound and no screen but a text console; hardware for networks and disks stays.
LEFT_OUT = (
    "drivers/gpu", "drivers/media", "drivers/infiniband", "drivers/staging", "sound", "drivers/isdn", "drivers/iio",
    "fs/ocfs2", "fs/gfs2", "fs/dlm", "fs/ceph", "fs/afs", "fs/coda", "fs/jfs", "fs/nilfs2", "fs/reiserfs", "fs/ubifs",
    "fs/jffs2", "fs/hfs", "fs/hfsplus", "fs/ufs", "fs/minix", "fs/affs", "fs/befs", "fs/bfs", "fs/orangefs", "fs/quota",
    "net/ceph", "net/dccp", "net/rxrpc", "net/tipc", "net/atm", "net/batman-adv", "net/6lowpan", "net/ieee802154",
    "drivers/net/wireless", "drivers/target", "drivers/cxl", "drivers/infiniband", "net/rds", "net/smc", "net/sunrpc",
    "fs/nfs", "fs/nfsd", "fs/lockd", "net/openvswitch", "net/mptcp_diag", "drivers/crypto/ccp", "drivers/crypto/qat",
)  # fmt: skip
LINKS = {"etc/resolv.conf": "/run/appliance/resolv.conf", "etc/hostname": "/run/appliance/hostname"}
LINKS |= {"etc/machine-id": "/run/appliance/machine-id", "sbin": "usr/sbin", "bin": "usr/bin", "lib": "usr/lib"}
TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nappliance:x:990:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


@dataclass(frozen=True)
class Root:
    """A finished root image."""

    file: Path
    blocks: int
    root_hash: str
    salt: str
    identity: uuid.UUID

    def arguments(self) -> str:
        """For the kernel's command line; packaging/image/init/ reads them."""
        return f"roothash={self.root_hash} appliance.verity={self.blocks}:{self.salt}:{self.identity}"


def payload_id(binary: bytes) -> str:
    """Of a built file: the name of the directory that it unpacks to."""
    return FOOTER.unpack(binary[-FOOTER.size :])[3].decode()


def without_payload(binary: bytes) -> bytes:
    """Only the launcher, and who it is: what it would unpack lies beside it."""
    offset, _, unpacked, identity, version, magic = FOOTER.unpack(binary[-FOOTER.size :])
    return binary[:offset] + FOOTER.pack(offset, 0, unpacked, identity, version, magic)


def build_root(
    out: Path, *, version: str, binary: Path, staged: Path, kernel: Kernel, modprobe: Path, extra: Path | None = None,
    fast: bool = False,
) -> Root:  # fmt: skip
    """``extra``: a tree laid over it. Written to ``out``. ``fast``: not as small as can be."""
    tree = out.with_name(f"{out.name}.tree.{os.getpid()}")
    shutil.rmtree(tree, ignore_errors=True)
    try:
        _fill(tree, version, binary, staged, kernel, modprobe)
        if extra is not None:
            shutil.copytree(extra, tree, symlinks=True, dirs_exist_ok=True)
        for path in (tree, *tree.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        return _seal(tree, out, fast=fast)
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def _fill(tree: Path, version: str, binary: Path, staged: Path, kernel: Kernel, modprobe: Path) -> None:
    for directory in DIRECTORIES:
        (tree / directory).mkdir(parents=True)
    for name, target in LINKS.items():
        (tree / name).symlink_to(target)
    for name, text in TEXTS.items():
        (tree / name).write_text(text)
    (tree / "etc/os-release").write_text(os_release(version))
    shutil.copy(AUTHORITIES, tree / "etc/ssl/certs/ca-certificates.crt")
    shutil.copy(FSCK, tree / "usr/sbin/e2fsck")
    launcher = tree / "usr/bin/appliance"
    launcher.write_bytes(without_payload(binary.read_bytes()))
    launcher.chmod(0o755)
    shutil.copy(modprobe, tree / "usr/sbin/modprobe")
    _pack_fresh_state(tree / "usr/lib/appliance/state.z")
    _unpack(tree, staged, payload_id(binary.read_bytes()), version)
    _copy_modules(tree / "usr/lib/modules" / kernel.release, kernel)


def _pack_fresh_state(out: Path) -> None:
    """For `appliance install --to` of a machine that has no image but itself (machine/installing.py)."""
    plain = out.with_suffix(".ext4")
    make_state(plain, STATE_SIZE)
    out.write_bytes(zlib.compress(plain.read_bytes(), 9))
    plain.unlink()


def os_release(version: str) -> str:
    """systemd-boot sorts by IMAGE_ID, then by IMAGE_VERSION."""
    released = release_text(version)
    return (
        f"ID=appliance\nNAME=Appliance\nIMAGE_ID=appliance\nVERSION_ID={version}\nIMAGE_VERSION={released}\n"
        f'PRETTY_NAME="Appliance {version}"\n'
    )


def _unpack(tree: Path, staged: Path, identity: str, version: str) -> None:
    """As launcher/unpack.c would, so that nothing is unpacked into memory at boot (launcher/place.c looks here)."""
    target = tree / "usr/lib/appliance" / identity
    (tree / PROGRAM.lstrip("/")).symlink_to(identity)
    shutil.copytree(staged, target, symlinks=True)
    (target / "VERSION").write_text(f"{version}\n")
    (target / "BUILT").write_text(f"{built()}\n")  # before that it cannot be: a dead battery is known by it
    for room, path in ((INTERPRETER, f"{PROGRAM}/lib/ld.so"), (LIBRARIES, f"{PROGRAM}/lib:{PROGRAM}/_internal")):
        program = (target / "appliance").read_bytes()
        assert program.count(room.encode()) == 1, "the program has no room for its paths"
        (target / "appliance").write_bytes(program.replace(room.encode(), path.encode().ljust(len(room), b"\0")))


def _copy_modules(target: Path, kernel: Kernel) -> None:
    """And an index for host/modules.py: "module NAME FILE NEEDS", "alias PATTERN NAME"."""
    lines = []
    for name, path in kernel.module_files().items():
        relative = str(path.relative_to(kernel.modules / "kernel"))
        if relative.startswith(LEFT_OUT):
            continue
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target / relative)
        facts = module_facts(module_bytes(path))
        needs = ",".join(need.replace("-", "_") for need in ",".join(facts.get("depends", [])).split(",") if need)
        lines.append(f"module {name} {relative} {needs}".rstrip())
        lines += [f"alias {pattern} {name}" for pattern in facts.get("alias", []) if " " not in pattern]
    (target / "index").write_text("\n".join(lines) + "\n")


def _seal(tree: Path, out: Path, *, fast: bool) -> Root:
    contents = hashlib.sha256()
    for path in sorted(tree.rglob("*")):
        what = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        contents.update(f"{path.relative_to(tree)}\0{len(what)}\0".encode() + what)
    identity = uuid.uuid5(NAMESPACE, contents.hexdigest())
    out.unlink(missing_ok=True)
    write_erofs(
        tree, out, identity=identity, epoch=EPOCH, late=lambda path: any(part in path for part in LATE), fast=fast
    )
    size = out.stat().st_size
    assert size % BLOCK == 0
    verity = ["veritysetup", "format", f"--hash-offset={size}", f"--data-blocks={size // BLOCK}", f"--salt={SALT}"]
    verity += [f"--uuid={identity}", str(out), str(out)]
    printed = subprocess.run(verity, check=True, capture_output=True, text=True).stdout
    root_hash = next(line.split()[-1] for line in printed.splitlines() if line.startswith("Root hash:"))
    return Root(out, size // BLOCK, root_hash, SALT, identity)
