"""The directory of unit files, and what earlier supervisors left in the run directory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from appliance.errors import ApplianceError, NotFoundError
from appliance.host import files
from appliance.host.facts import host_facts
from appliance.schema import Finding, Source, read_merged
from appliance.systemd import kind_of, unit_of_file
from appliance.units.graph import Graph, build_graph
from appliance.units.install_section import InstallSection
from appliance.units.restart_section import RestartSection
from appliance.units.run_state import RunState, decode_run_state_untrusted
from appliance.units.service_section import ServiceSection
from appliance.units.specifiers import instance_name, is_template, template_of
from appliance.units.systemd_files import parse_systemd_unit, systemd_sources
from appliance.units.ties import other_names, tied
from appliance.units.unit_file import SUFFIX, Unit, UnitDocument, parse_unit, unit_name
from appliance.units.unit_section import RELATIONS

_FILE_BYTES_MAX = 1 << 20
_INSTANCES_MAX = 10_000  # a template whose instances name more of themselves ends here
_SYSTEMDS_OTHERS = (".mount", ".automount", ".swap", ".slice", ".scope", ".device")


@dataclass(frozen=True)
class Template:
    """``web@.toml``, of which ``web@1`` is made."""

    file: str
    text: str
    directory: str


@dataclass(frozen=True)
class UnitFiles:
    """All that a directory declares. ``unreadable``: names of units whose file is not valid."""

    units: Mapping[str, Unit]
    unreadable: frozenset[str]
    findings: tuple[Finding, ...]
    templates: Mapping[str, Template] = field(default_factory=dict)  # by name: "web@"
    masked: frozenset[str] = frozenset()  # by a link to /dev/null
    implied: frozenset[str] = frozenset()  # instances that have no file, but are named by others


def read_unit_file(path: str, *, name: str = "") -> tuple[str, Unit | None, tuple[Finding, ...]]:
    """Name, the unit if it is valid, findings. Raises nothing: a file that cannot be read is a finding."""
    if kind_of(path.rpartition("/")[2]):
        return _read_systemd_file(path, name)
    name = name or unit_name(path.rpartition("/")[2]) or path.rpartition("/")[2]
    try:
        text = files.read_text(path, size_max=_FILE_BYTES_MAX)
        drop_ins = _drop_ins(path.rpartition("/")[0] or ".", name)
    except ApplianceError as exc:
        return name, None, (Finding(path, 1, 1, "", exc.message),)
    host = host_facts() if any("%" in one for one in (text, *(source.text for source in drop_ins))) else {}
    parsed = parse_unit(text, path, name=name, drop_ins=drop_ins, host=host)
    return parsed.name, parsed.unit, parsed.findings


def _read_systemd_file(path: str, name: str) -> tuple[str, Unit | None, tuple[Finding, ...]]:
    name = name or unit_of_file(path.rpartition("/")[2])
    try:
        sources = systemd_sources(path, name)
        drop_ins = _drop_ins(path.rpartition("/")[0] or ".", name)
    except ApplianceError as exc:
        return name, None, (Finding(path, 1, 1, "", exc.message),)
    parsed = parse_systemd_unit(sources, name=name, drop_ins=drop_ins, host=host_facts())
    return parsed.name, parsed.unit, parsed.findings


def file_to_edit(directory: str, name: str, *, drop_in: bool) -> str:
    """The unit's own file, or the drop-in that ``unit edit`` keeps."""
    return f"{directory}/{name}{SUFFIX}.d/override{SUFFIX}" if drop_in else _file_of(directory, name)


def _file_of(directory: str, name: str) -> str:
    """Its file, ours unless there is only one of systemd's kind."""
    ours = f"{directory}/{name}{SUFFIX}"
    theirs = f"{directory}/{name if kind_of(name) else f'{name}.service'}"
    return theirs if not files.exists(ours) and files.is_file(theirs) else ours


def read_new_unit(directory: str, name: str) -> tuple[Unit | None, tuple[Finding, ...]] | None:
    """The unit of that name by the files as they are now; None when there is none. Raises nothing."""
    path = _file_of(directory, name)
    if "/" in name or is_template(name) or not files.is_file(path) or files.points_to_dev_null(path):
        return None
    found, unit, findings = read_unit_file(path)
    return (unit, findings) if found == name else None


def draw_files(directory: str, names: Sequence[str], *, as_picture: bool) -> str:
    """The graph of the files alone: DOT or SVG. Raises NotFoundError."""
    found = read_unit_files(directory, names)
    graph = graph_of(found)
    for name in names:
        if name not in graph.names:
            raise NotFoundError(f"cannot draw {name}: no file {directory}/{name}{SUFFIX}", where=directory)
    from appliance.units.drawing import near, to_dot, to_svg

    return (to_svg if as_picture else to_dot)(graph, near(graph, names), {})


def check_unit_text(directory: str, name: str, text: str, *, drop_in: bool) -> tuple[Finding, ...]:
    """What would be wrong if that text were the unit's file, or its ``override.toml``."""
    path = _file_of(directory, name)
    override = f"{directory}/{name}{SUFFIX}.d/override{SUFFIX}"
    try:
        others = [one for one in _drop_ins(directory, name) if one.file != override]
        main = files.read_text(path, size_max=_FILE_BYTES_MAX) if drop_in else text
    except ApplianceError as exc:
        return (Finding(path, 1, 1, "", exc.message),)
    more = sorted((*others, Source(override, text)), key=lambda one: one.file) if drop_in else others
    if kind_of(path.rpartition("/")[2]):
        sources = [Source(path, main), *systemd_sources(path, name)[1:]]
        return parse_systemd_unit(sources, name=name, drop_ins=more, host=host_facts()).findings
    return parse_unit(main, path, name=name, drop_ins=more, host=host_facts()).findings


def _drop_ins(directory: str, name: str) -> list[Source]:
    """``web.toml.d/*.toml``, by file name; of an instance those of its template come first. Raises ApplianceError."""
    found: dict[str, Source | None] = {}
    for stem in filter(None, (template_of(name), name)):
        below = f"{directory}/{stem}{SUFFIX}.d"
        for file_name in files.list_directory(below):
            if unit_name(file_name) is not None:
                path = f"{below}/{file_name}"
                masked = files.points_to_dev_null(path)
                found[file_name] = None if masked else Source(path, files.read_text(path, size_max=_FILE_BYTES_MAX))
    return [found[file_name] for file_name in sorted(found) if found[file_name] is not None]  # type: ignore[misc]


def instance_of(found: UnitFiles, name: str) -> Unit | None:
    """That instance, made of its template; None when there is none, or it is not valid."""
    template = found.templates.get(template_of(name))
    return read_unit_file(template.file, name=name)[1] if template is not None and name not in found.masked else None


def enabled_with(found: UnitFiles, names: Sequence[str], verb: str) -> list[str]:
    """Those, by their own names, and what ``[install]`` of each says goes with it; of a template its default instance.

    Mask and unmask are of one name alone.
    """
    aliases = other_names(found.units)
    todo = list(names)
    done: dict[str, None] = {}
    for name in todo:
        name = aliases.get(name, name)
        install = _install_of(found, name)
        if install is not None and is_template(name) and install.default_instance is not None:
            name = instance_name(name, install.default_instance)
        if name not in done:
            done[name] = None
            if install is not None and verb in ("enable", "disable"):
                todo += [one for one in install.also if _install_of(found, aliases.get(one, one)) is not None]
    return list(done)


def _install_of(found: UnitFiles, name: str) -> InstallSection | None:
    if name in found.units:
        return found.units[name].document.install
    template = found.templates.get(name) or found.templates.get(template_of(name))
    if template is None:
        return None
    unit = read_unit_file(template.file, name=name)[1]
    return unit.document.install if unit is not None else None


def read_unit_files(directory: str, more: Iterable[str] = ()) -> UnitFiles:
    """One bad file never hides the others; a directory that is missing declares nothing.

    ``more``: instances of templates that should be there too.
    """
    units: dict[str, Unit] = {}
    unreadable: set[str] = set()
    masked: set[str] = set()
    templates: dict[str, Template] = {}
    findings: list[Finding] = []
    links: dict[str, str] = {}
    try:
        names = files.list_directory(directory)
    except ApplianceError as exc:
        return UnitFiles({}, frozenset(), (Finding(directory, 1, 1, "", exc.message),))
    for file_name in names:
        path = f"{directory}/{file_name}"
        name = unit_name(file_name) or (unit_of_file(file_name) if kind_of(file_name) else None)
        if name is None:
            if file_name.endswith(_SYSTEMDS_OTHERS) and not file_name.startswith("."):
                findings.append(Finding(path, 1, 1, "", "is not read: there are no units of that kind", "warning"))
            continue
        if files.is_directory(path):
            continue
        if kind_of(file_name) and f"{name}{SUFFIX}" in names:
            findings.append(Finding(path, 1, 1, "", f"is not read, for there is {name}{SUFFIX}", "warning"))
            continue
        if files.points_to_dev_null(path):
            masked.add(name)
            continue
        if (known_as := _link_within(path, name, names)) is not None:
            links[name] = known_as
            continue
        _, unit, found = read_unit_file(path)
        findings += found
        if unit is None:
            unreadable.add(name)
        elif is_template(name):
            templates[name] = Template(path, unit.text, directory)
        else:
            units[name] = unit
    for alias, name in links.items():
        if name in units:
            units[name] = _also_called(units[name], alias)
    whole = UnitFiles(units, frozenset(unreadable), (), templates, frozenset(masked))
    implied = _imply(whole, units, more)
    return UnitFiles(units, whole.unreadable, tuple(findings), templates, whole.masked, frozenset(implied))


def _link_within(path: str, name: str, names: Sequence[str]) -> str | None:
    """The unit of which a link in the same directory is another name; an instance of a template is one of its own."""
    target = files.link_target(path).removeprefix("./")
    if target not in names:
        return None
    other = unit_name(target) or (unit_of_file(target) if kind_of(target) else None)
    return other if other not in (None, name, template_of(name)) else None


def _also_called(unit: Unit, alias: str) -> Unit:
    install = unit.document.install
    named = replace(install, alias=(*install.alias, alias)) if alias not in install.alias else install
    return replace(unit, document=replace(unit.document, install=named))


def _imply(found: UnitFiles, units: dict[str, Unit], more: Iterable[str]) -> set[str]:
    """Instances of templates that units name, or that are asked for, join them."""
    implied: set[str] = set()
    tried: set[str] = set()
    todo = [*more, *(one for unit in units.values() for one in named_by(unit))]
    for name in todo:
        if name in units or name in tried or len(tried) > _INSTANCES_MAX:
            continue
        tried.add(name)
        unit = instance_of(found, name) if template_of(name) in found.templates else None
        if unit is not None:
            units[name] = unit
            implied.add(name)
            todo += named_by(unit)
    return implied


def named_by(unit: Unit) -> Iterator[str]:
    """The units that this one names anywhere."""
    for key in RELATIONS:
        yield from getattr(unit.document.unit, key)


def graph_of(found: UnitFiles) -> Graph:
    """The graph of all that a directory declares."""
    return link_units(found.units, found.unreadable, found.masked)


def link_units(
    units: Mapping[str, Unit],
    unreadable: frozenset[str],
    masked: frozenset[str] = frozenset(),
    disabled: frozenset[str] = frozenset(),
) -> Graph:
    """The graph of these units. What would take along a disabled unit does not."""
    return build_graph(
        tied(units, disabled | masked),
        unreadable,
        targets=frozenset(name for name, unit in units.items() if not unit.has_process),
        masked=masked,
        triggers={name: unit.triggers_of_others for name, unit in units.items() if unit.triggers_of_others},
    )


def graph_findings(graph: Graph, units: Mapping[str, Unit]) -> Iterator[Finding]:
    """What is wrong between units, at its place in the file of each one concerned."""
    for name, why in sorted(graph.refused.items()):
        unit, key = units[name], graph.refused_keys[name]
        yield Finding(*read_merged(unit.sources, UnitDocument).place(key), key, f"{name} cannot start: {why}")


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
    parsed = parse_unit(run.text, run.file, name=run.name, host=host_facts())
    if parsed.unit is not None and parsed.unit.name == run.name:
        return parsed.unit
    document = UnitDocument(service=ServiceSection(command=("/bin/false",)), restart=RestartSection(policy="no"))
    return Unit(run.name, document, run.text, run.file)
