"""Our trust code as a program that the TUF project's conformance suite can drive (its CLIENT-CLI.md).

    pytest tuf_conformance --entrypoint "/work/main/.build/venv/bin/python -m tests.update.conformance.client"

``init`` keeps the trusted root, as a host has it in its trust directory; ``refresh`` and ``download`` are what the
worker does. What a host keeps lies in METADATA_DIR/host; the suite looks for the plain names beside it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from appliance.errors import ApplianceError
from appliance.update import Offer, Repository
from appliance.update.worker import download

ROLES_END = ".json"


def main() -> int:
    """0: done. 1: any part of it was refused or failed; then standard error says why."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--metadata-dir", type=Path, required=True)
    for name in ("--metadata-url", "--target-name", "--target-base-url", "--target-dir"):
        parser.add_argument(name, default="")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("init").add_argument("root", type=Path)
    verbs.add_parser("refresh")
    verbs.add_parser("download")
    asked = parser.parse_args()
    host = asked.metadata_dir / "host"
    if asked.verb == "init":
        host.mkdir(exist_ok=True)
        shutil.copy(asked.root, host / "trusted-root")
        shutil.copy(asked.root, asked.metadata_dir / "root.json")
        return 0
    try:
        ask(asked, host)
    except ApplianceError as error:
        print(error.message, file=sys.stderr)
        return 1
    finally:
        show(host / "metadata", asked.metadata_dir)
    return 0


def ask(asked: argparse.Namespace, host: Path) -> None:
    """One check, or one download, in a process of its own as on a host."""
    url = asked.metadata_url.rstrip("/").removesuffix("/metadata")
    trusted = (host / "trusted-root").read_bytes()
    repository = Repository(repository=url, trust_root=trusted, directory=str(host / "metadata"), floor=0.0)
    try:
        repository.refresh()
        if asked.verb == "download":
            target, _ = repository.locate(asked.target_name)
            offer = Offer(asked.target_name, "1.0", target.hashes["sha256"], target.length)
            file = download(repository, offer, str(host / "download"))
            name = asked.target_name.replace("%", "%25").replace("/", "%2F")
            if not (kept := Path(asked.target_dir, name)).exists() or kept.read_bytes() != Path(file).read_bytes():
                shutil.copyfile(file, kept)
    finally:
        repository.close()


def show(kept: Path, names: Path) -> None:
    """What is trusted, under the names that the suite looks for."""
    for file in kept.glob("*" + ROLES_END):
        if not file.name.startswith("seen"):  # our own
            shutil.copy(file, names / file.name)
    roots = list((kept / "root_history").glob("*.root.json"))
    if roots:
        shutil.copy(max(roots, key=lambda file: int(file.name.partition(".")[0])), names / "root.json")


if __name__ == "__main__":
    sys.exit(main())
