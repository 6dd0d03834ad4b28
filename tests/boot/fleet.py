"""Versions of our own OS, published as a publisher would, and one machine that takes them over HTTP."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import subprocess
import threading
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.boot.guest import SETTINGS, TOKEN, WATCHDOG, make_disk, unit
from tests.boot.versions import BINARY, MARK, Image, take_image
from tests.boot.vm import VM

UPDATES = """\
{status}
[update]
repository = "http://10.0.2.2:{port}/"
interval = "2s"
[update.health]
settle = "2s"
deadline = "40s"
"""
# Both were there before any update: one is well as long as the root has what it needs, the other keeps a key.
UNITS = {
    "/etc/appliance/units/web.toml": unit(f"test -e /{MARK} && exec sleep 100000", kind="exec"),
    "/etc/appliance/units/note.toml": unit(
        "A=/usr/bin/appliance; "  # its API may come a moment after us; 4: it is there, and the key is not
        "until K=$($A store get /test/kept --value-only) || [ $? = 4 ]; do sleep 1; done; "
        "[ -e /var/lib/test/put ] || { $A store put /test/kept first && : > /var/lib/test/put; }; "
        "echo \"KEPT ${K:-nothing} in $($A version)\" > /dev/console",
    ),
}  # fmt: skip


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """As a web server does: with Range, which python's own lacks."""

    sent = 0
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = self.translate_path(self.path)
        if not os.path.isfile(path):
            return self.send_error(404)
        size, found = os.path.getsize(path), re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(found[1]), min(int(found[2] or size), size - 1)) if found else (0, size - 1)
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.send_header("Content-Length", str(end - start + 1))
        self.end_headers()
        with open(path, "rb") as file, suppress(ConnectionError):
            file.seek(start)
            left = end - start + 1
            while left and (piece := file.read(min(left, 1 << 18))):
                self.wfile.write(piece)
                RangeHandler.sent += len(piece)
                left -= len(piece)
        return None


@dataclass
class Fleet:
    """What publishers have. ``parts``: of each version that was built."""

    work: Path
    port: int = 0
    parts: dict[str, Any] = field(default_factory=dict)

    @property
    def repository(self) -> Path:
        return self.work / "repository"

    def begin(self) -> Fleet:
        """An empty repository, served."""
        self._release("init", self.repository, "--root-keys", "1", "--threshold", "1")
        root = str(self.repository)

        class Handler(RangeHandler):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=root)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def end(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def build(
        self, version: str, *, marked: bool = True, init: bytes | None = None, root_of: str = "", arguments: str = ""
    ) -> Any:
        """``marked``: with what the unit web needs. ``root_of``: another kernel image over that version's root."""
        from image.build import build_uki_of  # type: ignore[import-not-found]

        parts = self.parts[root_of] if root_of else take_image(version, marked=marked).parts
        if root_of or init or arguments:
            parts = build_uki_of(parts.root, version=version, init=init, arguments=arguments, fast=True)
        self.parts[version] = parts
        return parts

    def publish(self, version: str) -> None:
        """Every machine that asks from now on takes it."""
        from image.build import write_payload

        payload = self.work / f"{version}.os"
        write_payload(payload, self.parts[version])
        self._release("add", self.repository, payload, "--channel", "stable", "--kind", "os")
        self._release("publish", self.repository)
        payload.unlink()

    def disk(self, out: Path, version: str, megabytes: int = 700) -> Path:
        """A machine as it is delivered: that version, our settings, trust root, units."""
        parts, image = self.parts[version], self.work / f"{version}.img"
        if not image.exists():
            self.plain_disk(image, version)
        files = {
            "/etc/appliance/appliance.toml": UPDATES.format(status=SETTINGS, port=self.port),
            "/etc/appliance/trust/root.json": (self.repository / "metadata/1.root.json").read_text(),
            **UNITS,
        }  # fmt: skip
        whole = Image(image, parts.kernel, image, parts.command_line, parts)
        return make_disk(whole, out, files, megabytes=megabytes)

    def plain_disk(self, out: Path, version: str) -> None:
        """As the image is, in the first slot, good."""
        from image.disk import build_disk

        parts = self.parts[version]
        build_disk(out, root=parts.root.file, uki=parts.uki, entry=f"appliance_{version}.good+3.efi")

    def _release(self, verb: str, *words: object) -> None:
        command: list[object] = [BINARY, "release", verb, *words]
        if verb in ("init", "publish"):
            command += ["--keys", self.work / "keys"]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        assert done.returncode == 0, f"release {verb}: {done.stderr}{done.stdout}"


def ask(port: int, path: str) -> Any:
    """The status endpoint of the machine."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def power_on(disk: Path, work: Path, port: int = 0, drive: list[str] | None = None) -> VM:
    """Firmware, boot loader, all of it."""
    vm = VM(
        disk, work, name=disk.stem, forwards={port: 7780} if port else {}, extra=WATCHDOG,
        drive=drive,
    )  # fmt: skip
    return vm.start()


def logged_drive(disk: Path, log: Path) -> list[str]:
    """Every write and flush of the guest goes to ``log`` too (write_log reads it).

    Merged requests may have more pieces than one pwritev takes once the log's own is added: EIO, and a torn log.
    """
    return [
        "-blockdev", f"driver=file,node-name=f0,filename={disk}",
        "-blockdev", f"driver=file,node-name=l0,filename={log}",
        "-blockdev", "driver=blklogwrites,node-name=d0,file=f0,log=l0,log-sector-size=512,log-super-update-interval=1",
        "-device", "virtio-blk-pci,drive=d0,bootindex=0,write-cache=on,request-merging=off",
    ]  # fmt: skip


def copy_disk(source: Path, out: Path) -> Path:
    """Sparse."""
    subprocess.run(["cp", "--sparse=always", source, out], check=True)
    return out


def forget(*paths: Path) -> None:
    for path in paths:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
