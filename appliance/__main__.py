"""What PyInstaller freezes and ``python -m appliance`` runs: the version at once, or the command line."""

from __future__ import annotations

import sys


def main() -> int:
    """Returns the exit code."""
    if sys.argv[1:] in (["--version"], ["version"]):  # imports next to nothing: the packaging tests count on it
        from appliance.version import version

        print("appliance", version())
        return 0
    from appliance.cli import main as command_line
    from appliance.host.bundle import take

    take()  # what the launcher told us is not for the editor, pager or hook that a command may start
    return command_line(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
