"""What is imported without being loaded, where the built file finds its modules, and how much a start loads."""

from __future__ import annotations

import marshal
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from appliance.host import late_modules
from appliance.host.packed_modules import PackedModules
from tests.app.daemon import HOUSE, SETTINGS, Daemon

MODULES_MAX = 445  # of a start with a unit; they were 550 before some were late
UNIT = '[service]\ncommand = ["/bin/sleep", "infinity"]\n'
LATER = re.compile(  # nobody waits for these
    r"_ssl|_bz2|_lzma|idna\.|tempfile|shutil|argparse|html|asyncio|httpx|tuf|cryptography|google|zstandard"
    r"|appliance\.(etcdapi|migration|bolt|console|machine\.machine$|cli\.parser|update\.(agent|course|bundles)"
    r"|api\.(page|openapi|metrics|\w+_work_routes|unit_routes|store_routes|update_routes)"
    r"|external\.(client|face)|store\.(checking|exporting|importing|backing_up|rewriting)|units\.drawing)"
)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("late_test"):
            del sys.modules[name]


def late(library: Path, name: str, text: str) -> ModuleType:
    (library / f"{name}.py").write_text(text)
    late_modules.postpone((name,))
    module = sys.modules[name]
    assert "LOADED" not in vars(module)
    return module


def test_it_becomes_the_module_at_the_first_name(library: Path) -> None:
    module = late(library, "late_test_one", "import sys\nLOADED = True\nclass Kind: pass\nme = sys.modules[__name__]\n")
    import late_test_one  # type: ignore[import-not-found]

    assert late_test_one is module
    assert module.__name__ == "late_test_one"
    assert "LOADED" not in vars(module)
    assert isinstance(late_test_one.Kind(), module.Kind)
    assert module.me is module
    assert type(module) is ModuleType
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_what_it_asks_of_itself_meanwhile_is_not_there(library: Path) -> None:
    text = "import sys\nhad = hasattr(sys.modules[__name__], 'LOADED')\nLOADED = True\n"
    assert late(library, "late_test_self", text).had is False


def test_one_of_two_threads_loads_it_and_the_other_waits(library: Path) -> None:
    text = "import time\ncount = globals().get('count', 0) + 1\ntime.sleep(0.2)\nLOADED = True\n"
    module = late(library, "late_test_threads", text)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append((module.LOADED, module.count))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(True, 1)] * 8


def test_one_that_failed_is_tried_again(library: Path) -> None:
    text = "import os\nhalf = 1\nif not os.path.exists(__file__ + '.now'):\n    raise OSError('no')\nLOADED = True\n"
    module = late(library, "late_test_failing", text)
    with pytest.raises(OSError, match="no"):
        module.LOADED  # noqa: B018
    assert "half" not in vars(module)
    (library / "late_test_failing.py.now").touch()
    assert module.LOADED


def test_one_that_does_not_exist_fails_when_it_is_imported() -> None:
    late_modules.postpone(("late_test_nowhere",))
    assert "late_test_nowhere" not in sys.modules


def code(text: str) -> bytes:
    return marshal.dumps(compile(text, "x.py", "exec"))


def test_the_archive_and_files_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {
        "late_test_packed": (code("from late_test_packed.inner import a\n"), True),
        "late_test_packed.inner": (code("a = 7\n"), False),
    }
    index, body = {}, b""
    for name, (data, is_package) in parts.items():
        index[name] = len(body), len(data), is_package
        body += data
    head = marshal.dumps(index)
    (tmp_path / "modules").write_bytes(len(head).to_bytes(8, "little") + head + body)
    (tmp_path / "late_test_packed").mkdir()
    (tmp_path / "late_test_packed/some.txt").write_text("kept beside it")
    ours = tmp_path / "appliance/late_test_ours"
    ours.mkdir(parents=True)
    (ours / "__init__.pyc").write_bytes(bytes(16) + code("b = 8\n"))
    (ours / "deep.pyc").write_bytes(bytes(16) + code("from appliance.late_test_ours import b\n"))
    finder = PackedModules(str(tmp_path))
    (tmp_path / "modules").unlink()  # what is open stays
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    from importlib import import_module, resources

    try:
        packed = import_module("late_test_packed")
        assert packed.a == 7
        assert packed.__file__ == f"{tmp_path}/late_test_packed/__init__.py"
        assert import_module("late_test_packed.inner").__package__ == "late_test_packed"
        assert resources.files("late_test_packed").joinpath("some.txt").read_text() == "kept beside it"
        assert import_module("appliance.late_test_ours.deep").b == 8
        with pytest.raises(ModuleNotFoundError):
            import_module("appliance.late_test_ours.nowhere")
    finally:
        for name in [name for name in sys.modules if "late_test" in name]:
            del sys.modules[name]


TEXTS = """
import builtins, dataclasses, sys
from typing import NamedTuple
sys._MEIPASS = sys.argv[1]
real = builtins.compile
from appliance.late_methods import postpone
postpone()
from appliance.host import known_texts
known_texts.use()
known, asked = known_texts._texts.get, [0, 0]
class Counting(dict):
    def get(self, key):
        asked[key in self] += 1
        return super().get(key)
known_texts._texts = Counting(known_texts._texts)
import trio, appliance.units.units
from appliance.host.layout import Layout
assert Layout("/x").root == "/x"
@dataclasses.dataclass
class Own:
    a: int
    b: str = "x"
class Pair(NamedTuple):
    left: "int"
assert (Own(1), Own(2, b="y").b, Pair(3).left, eval(compile("6 * 7", "x", "eval"))) == (Own(1, "x"), "y", 3, 42)
known_texts.forget()
assert builtins.compile is real and "exec" not in vars(dataclasses)
assert repr(Own(4)) == "Own(a=4, b='x')"
print(*asked)
"""


def test_texts_compiled_by_the_build_are_found_and_others_compiled(tmp_path: Path) -> None:
    texts = [sys.executable, "-OO", HOUSE / "packaging/texts.py"]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    for name in ("texts", "again"):
        subprocess.run([*texts, tmp_path / name], check=True, env=environment)
    assert (tmp_path / "texts").read_bytes() == (tmp_path / "again").read_bytes()
    script = [sys.executable, "-OO", "-c", TEXTS, tmp_path]
    done = subprocess.run(script, capture_output=True, text=True, cwd=HOUSE)
    assert done.stderr == ""
    missed, hit = map(int, done.stdout.split())
    assert missed
    assert hit > 40


def test_a_start_loads_no_more_than_it_needs(tmp_path: Path) -> None:
    etc = tmp_path / "etc/appliance"
    (etc / "units").mkdir(parents=True)
    (etc / "appliance.toml").write_text(SETTINGS)
    (etc / "units/one.toml").write_text(UNIT)
    daemon = Daemon([sys.executable, "-X", "importtime", "-m", "appliance"], tmp_path)
    try:
        daemon.expect_ready()
        lines = list(daemon.lines)
        ready = next(number for number, line in enumerate(lines) if " ready; status page" in line)
        loaded = [found[1] for line in lines[:ready] if (found := re.search(r"import time:.*\| +(\S+)$", line))]
        assert daemon.get("/readyz")[0] == 200
        assert daemon.status()["update"]["state"] in ("starting", "idle")  # late, but there
    finally:
        daemon.stop()
    assert "trio" in loaded
    assert [name for name in loaded if LATER.match(name)] == []
    assert len(loaded) <= MODULES_MAX, len(loaded)
