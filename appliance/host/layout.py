"""Where everything lives on a host; ``root`` puts all of it below one directory (design 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.version import SCHEMA


@dataclass(frozen=True)
class Layout:
    """The paths of one appliance. Pure strings; nothing here touches the disk."""

    root: str = "/"

    def below(self, path: str) -> str:
        """``/etc/x`` below this root."""
        return path if self.root == "/" else self.root.rstrip("/") + path

    @property
    def settings_file(self) -> str:
        """The settings."""
        return self.below("/etc/appliance/appliance.toml")

    @property
    def settings_fragments(self) -> str:
        """Directory of settings fragments, merged in name order."""
        return self.below("/etc/appliance/appliance.d")

    @property
    def units(self) -> str:
        """Directory of unit files."""
        return self.below("/etc/appliance/units")

    @property
    def trust_root(self) -> str:
        """The TUF root that this host trusts."""
        return self.below("/etc/appliance/trust/root.json")

    @property
    def state(self) -> str:
        """What must last."""
        return self.below("/var/lib/appliance")

    @property
    def store(self) -> str:
        """The store's log segments and checkpoint."""
        return self.state + ("/store" if SCHEMA == 1 else f"/data-{SCHEMA}/store")

    @property
    def slots(self) -> str:
        """The two versions and their record."""
        return self.state + "/slots"

    @property
    def update(self) -> str:
        """Update metadata and downloads."""
        return self.state + "/update"

    @property
    def wave_lot(self) -> str:
        """What this host drew for its place in the waves of releases."""
        return self.identity + "/wave-lot"

    @property
    def journal(self) -> str:
        """Unit logs."""
        return self.state + "/journal"

    @property
    def identity(self) -> str:
        """Machine id and keys."""
        return self.state + "/identity"

    @property
    def run(self) -> str:
        """What lasts until the next boot: sockets, locks, pipes, run state of units."""
        return self.below("/run/appliance")

    @property
    def run_units(self) -> str:
        """Per unit: its output pipe and what a later supervisor needs to adopt it."""
        return self.run + "/units"

    @property
    def control_socket(self) -> str:
        """The control API."""
        return self.run + "/control.sock"

    @property
    def etcd_socket(self) -> str:
        """The etcd v3 API, root only."""
        return self.run + "/etcd.sock"

    @property
    def holder_socket(self) -> str:
        """Where the keeper of file descriptors answers (host.holder)."""
        return self.run + "/holder.sock"

    @property
    def lock(self) -> str:
        """Held by the one daemon of this root; holds its pid as text."""
        return self.run + "/lock"
