"""What is updated: this program, our own OS image, or a user's bundle; and where the files of its updates lie. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from appliance.host.layout import Layout

Kind = Literal["binary", "os", "bundle"]
KINDS: tuple[Kind, ...] = ("binary", "os", "bundle")
PRODUCT = "appliance"  # our own name, of the binary and of the OS image
ANY_ARCHITECTURE = "any"  # a bundle that runs everywhere
NAME_PATTERN = r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?"


@dataclass(frozen=True)
class Product:
    """The same version of ours is a binary and an OS image; a bundle has a name of its own."""

    name: str = PRODUCT
    kind: Kind = "binary"

    @property
    def file(self) -> str:
        """How its releases are called in a repository."""
        return self.name if self.kind == "binary" else f"{self.name}.{self.kind}"

    @property
    def is_bundle(self) -> bool:
        """A user's: it is switched beside us, and we live on."""
        return self.kind == "bundle"

    @property
    def word(self) -> str:
        """With which the names of its failpoints begin."""
        return "bundle" if self.is_bundle else "update"

    @property
    def keys(self) -> str:
        """Where in the store its memory lies."""
        return f"update/products/{self.name}" if self.is_bundle else "update"

    def directory(self, layout: Layout) -> str:
        """Of metadata and downloads."""
        return f"{layout.update}/products/{self.name}" if self.is_bundle else layout.update

    def slots(self, layout: Layout) -> str:
        """Of its two slots and their record."""
        return f"{layout.state}/bundles/{self.name}" if self.is_bundle else layout.slots

    def progress(self, layout: Layout) -> str:
        """Where its worker tells how far it is."""
        return layout.run + (f"/update-progress-{self.name}.json" if self.is_bundle else "/update-progress.json")

    def holds(self, layout: Layout) -> str:
        """Where units put files that hold updates back."""
        return layout.run + (f"/update-hold-{self.name}.d" if self.is_bundle else "/update-hold.d")

    def fits(self, architecture: str, host: str) -> bool:
        """Whether what was made for that architecture runs on this host."""
        return architecture == host or (self.is_bundle and architecture == ANY_ARCHITECTURE)


OURS = Product()


def name_problem(name: str, kind: str) -> str | None:
    """Why a product of that kind cannot be called so."""
    if not re.fullmatch(NAME_PATTERN, name):
        return "must be lower case letters, digits and dashes, at most 48"
    if (name == PRODUCT) == (kind == "bundle"):
        return f'must be "{PRODUCT}"' if kind != "bundle" else f'must not be "{PRODUCT}"'
    return None
