"""What PyInstaller freezes and ``python -m appliance`` runs: the version at once, or the command line."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as mypy reads it; typing itself is not loaded here
if TYPE_CHECKING:
    from types import TracebackType


def main() -> int:
    """Returns the exit code."""
    if sys.argv[1:2] != ["run"]:
        sys.excepthook = tell_bug
    if sys.argv[1:] in (["--version"], ["version"]):  # imports next to nothing: the packaging tests count on it
        from appliance.version import version

        try:
            print("appliance", version(), flush=True)
        except OSError as error:
            print(f"appliance: cannot write to standard output: {error.strerror}", file=sys.stderr, flush=True)
            leave(1)
        return 0
    from appliance.host import packed_modules

    packed_modules.find_here()
    from appliance.host import late_modules

    late_modules.postpone()
    from appliance import late_methods

    late_methods.postpone()
    from appliance.cli import main as command_line
    from appliance.host.bundle import take

    take()  # what the launcher told us is not for the editor, pager or hook that a command may start
    return command_line(sys.argv[1:])


def leave(code: int) -> None:
    """At once: Python's own end would try to write again, and PyInstaller's loader adds a word of its own."""
    import os

    os._exit(code)


def tell_bug(kind: type[BaseException], bug: BaseException, trace: TracebackType | None) -> None:
    """In place of the trace, which is of use to us only: one line, with the places it came through."""
    places = []
    while trace is not None:
        where = trace.tb_frame.f_code
        places.append(f"{where.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {where.co_name}")
        trace = trace.tb_next
    code = 130
    if not issubclass(kind, KeyboardInterrupt):  # that one is somebody who changed his mind while we loaded
        code = 1
        print(f"appliance: this is a bug of ours: {kind.__name__}: {bug} ({' > '.join(places[-4:])})", file=sys.stderr)
    sys.stderr.flush()
    leave(code)


if __name__ == "__main__":
    sys.exit(main())
