"""The directory of unit files, and what earlier supervisors left in the run directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from appliance.errors import ApplianceError
from appliance.host import files
from appliance.schema import Finding, read
from appliance.units.graph import Graph, build_graph
from appliance.units.restart_section import RestartSection
from appliance.units.run_state import RunState, decode_run_state_untrusted
from appliance.units.service_section import ServiceSection
from appliance.units.unit_file import Unit, UnitDocument, parse_unit, unit_name

_FILE_BYTES_MAX = 1 << 20
_SYSTEMD = (".service", ".timer", ".socket", ".path", ".target", ".mount")


@dataclass(frozen=True)
class UnitFiles:
    """All that a directory declares. ``unreadable``: names of units whose file is not valid."""

    units: Mapping[str, Unit]
    unreadable: frozenset[str]
    findings: tuple[Finding, ...]


def read_unit_file(path: str) -> tuple[str, Unit | None, tuple[Finding, ...]]:
    """Name, the unit if it is valid, findings. Raises nothing: a file that cannot be read is a finding."""
    try:
        text = files.read_text(path, size_max=_FILE_BYTES_MAX)
    except ApplianceError as exc:
        name = path.rpartition("/")[2]
        return unit_name(name) or name, None, (Finding(path, 1, 1, "", exc.message),)
    parsed = parse_unit(text, path)
    return parsed.name, parsed.unit, parsed.findings


def read_unit_files(directory: str) -> UnitFiles:
    """One bad file never hides the others; a directory that is missing declares nothing."""
    units: dict[str, Unit] = {}
    unreadable: set[str] = set()
    findings: list[Finding] = []
    try:
        names = files.list_directory(directory)
    except ApplianceError as exc:
        return UnitFiles({}, frozenset(), (Finding(directory, 1, 1, "", exc.message),))
    for file_name in names:
        path = f"{directory}/{file_name}"
        if unit_name(file_name) is None:
            if file_name.endswith(_SYSTEMD):
                findings.append(Finding(path, 1, 1, "", "systemd's unit files are not supported yet in this version"))
            continue
        if files.points_to_dev_null(path):
            continue  # masked
        name, unit, found = read_unit_file(path)
        findings += found
        if unit is None:
            unreadable.add(name)
        else:
            units[name] = unit
    return UnitFiles(units, frozenset(unreadable), tuple(findings))


def graph_of(found: UnitFiles) -> Graph:
    """The graph of all that a directory declares."""
    return link_units(found.units, found.unreadable)


def link_units(units: Mapping[str, Unit], unreadable: frozenset[str]) -> Graph:
    """The graph of these units."""
    return build_graph(
        {name: unit.document.unit for name, unit in units.items()},
        unreadable,
        targets=frozenset(name for name, unit in units.items() if not unit.has_process),
    )


def graph_findings(graph: Graph, units: Mapping[str, Unit]) -> Iterator[Finding]:
    """What is wrong between units, at its place in the file of each one concerned."""
    for name, why in sorted(graph.refused.items()):
        unit, key = units[name], graph.refused_keys[name]
        yield Finding(*read(unit.text, unit.file, UnitDocument).place(key), key, f"{name} cannot start: {why}")


def read_run_states(directory: str, boot_id: str) -> tuple[RunState, ...]:
    """What is worth adopting: written in this boot, and whole. The rest is removed."""
    found = []
    for name in files.list_directory(directory):
        path = f"{directory}/{name}/state.json"
        if not files.exists(path):
            continue
        try:
            run = decode_run_state_untrusted(files.read_bytes(path, size_max=4 * _FILE_BYTES_MAX))
        except ApplianceError:
            run = None
        if run is not None and run.boot_id == boot_id and run.name == name:
            found.append(run)
        else:
            files.remove(path)
    return tuple(found)


def unit_of_run_state(run: RunState) -> Unit:
    """The definition it was started from, even if this version would not accept its text any more."""
    parsed = parse_unit(run.text, run.file)
    if parsed.unit is not None and parsed.unit.name == run.name:
        return parsed.unit
    document = UnitDocument(service=ServiceSection(command=("/bin/false",)), restart=RestartSection(policy="no"))
    return Unit(run.name, document, run.text, run.file)
