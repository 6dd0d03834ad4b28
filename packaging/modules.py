"""All Python modules that are not ours, as one file that appliance/host/packed_modules.py reads.

PyInstaller's own archive and finders take 0.1 ms a module, three times what loading it takes: a tenth of a start.
"""

from __future__ import annotations

import marshal
import zipfile
from pathlib import Path

from PyInstaller.loader.pyimod01_archive import PYZ_ITEM_MODULE, PYZ_ITEM_PKG, ZlibArchiveReader

PYC_HEADER = 16


def write_modules(out: Path, archive: Path, library: Path) -> None:
    """``archive``: a .pyz of PyInstaller's; ``library``: its base_library.zip. Eight bytes, the index, the code."""
    code: dict[str, tuple[bool, bytes]] = {}
    reader = ZlibArchiveReader(str(archive))
    for name, (kind, *_) in reader.toc.items():
        if kind in (PYZ_ITEM_MODULE, PYZ_ITEM_PKG):
            code[name] = kind == PYZ_ITEM_PKG, reader.extract(name, raw=True)
    with zipfile.ZipFile(library) as file:
        for path in file.namelist():
            name, is_package = path.removesuffix(".pyc").replace("/", "."), path.endswith("/__init__.pyc")
            code.setdefault(name.removesuffix(".__init__"), (is_package, file.read(path)[PYC_HEADER:]))
    index, at = {}, 0
    for name, (is_package, data) in sorted(code.items()):
        index[name] = at, len(data), is_package
        at += len(data)
    head = marshal.dumps(index)
    body = b"".join(data for _, (_, data) in sorted(code.items()))
    out.write_bytes(len(head).to_bytes(8, "little") + head + body)
