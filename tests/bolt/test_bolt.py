"""What we write, we read, and bbolt itself checks and reads; what bbolt writes, we read; what is damaged, we refuse."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.bolt import Bucket, Reader, Tree, Writer, is_bolt
from appliance.errors import ApplianceError, CorruptError, InputError

Node = dict[bytes, "bytes | Node"]


def write(content: Node, page_size: int = 4096) -> bytes:
    out: list[bytes] = []
    writer = Writer(out.append, page_size=page_size)

    def fill(node: Node) -> Tree:
        tree = writer.tree()
        for key, value in sorted(node.items()):
            if isinstance(value, bytes):
                tree.put(key, value)
            else:
                tree.put_bucket(key, fill(value))
        return tree

    root = fill(content)
    head = writer.finish(root)
    data = head + b"".join(out)
    assert len(data) == writer.size
    return data


def reader_of(data: bytes) -> Reader:
    return Reader(lambda size, offset: data[offset : offset + size], len(data))


def content_of(bucket: Bucket) -> Node:
    found: Node = dict(bucket.items())
    found.update((key, content_of(inner)) for key, inner in bucket.buckets())
    return found


KEYS = st.binary(min_size=1, max_size=40)
NODES: st.SearchStrategy[Node] = st.recursive(
    st.dictionaries(KEYS, st.binary(max_size=600), max_size=60),
    lambda below: st.dictionaries(KEYS, st.one_of(st.binary(max_size=3000), below), max_size=8),  # type: ignore[arg-type]
    max_leaves=5,
)


@given(NODES, st.sampled_from([512, 4096, 16384]))
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
def test_what_is_written_is_read(content: Node, page_size: int) -> None:
    assert content_of(reader_of(write(content, page_size)).root) == content


def big(count: int, seed: int = 1) -> Node:
    chance = random.Random(seed)
    return {b"%09d" % (7 * n): chance.randbytes(chance.choice((0, 3, 200, 200, 5000))) for n in range(count)}


@pytest.fixture(scope="session")
def bbolt(tmp_path_factory: pytest.TempPathFactory) -> str:
    if not shutil.which("go"):
        pytest.skip("needs go (and Debian's golang-github-coreos-bbolt-dev)")
    directory = tmp_path_factory.mktemp("bbolt")
    program = str(directory / "bbolt")
    environment = dict(os.environ, GO111MODULE="off", GOPATH="/usr/share/gocode", GOCACHE=str(directory / "cache"))
    source = str(Path(__file__).with_name("bbolt.go"))
    subprocess.run(["nice", "go", "build", "-o", program, source], env=environment, check=True, timeout=300)
    return program


def lines(node: Node, path: str = "") -> list[str]:
    found = []
    for key, value in sorted(node.items()):
        if isinstance(value, bytes):
            found.append(f"{path} {key.hex()} {value.hex()}")
        else:
            found += [f"{path}/{key.hex()}", *lines(value, f"{path}/{key.hex()}")]
    return found


CONTENTS: dict[str, Node] = {
    "empty": {},
    "an empty bucket": {b"key": {}},
    "one item": {b"key": {b"a": b"b"}},
    "many": {b"key": big(20_000), b"meta": {b"x": b"y"}, b"z": {}},
    "long keys": {b"key": {b"%04d" % n + b"k" * 3000: b"v" for n in range(50)}},
    "a value of many pages": {b"key": {b"a": b"1", b"b": bytes(range(256)) * 8000, b"c": b"3"}},
    "buckets in buckets": {b"a": {b"b": {b"c": big(300), b"d": b"e"}, b"f": {b"g": {}}}},
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("page_size", [4096, 16384])
def test_bbolt_checks_and_reads_ours(bbolt: str, tmp_path: Path, name: str, page_size: int) -> None:
    path = tmp_path / "ours.db"
    path.write_bytes(write(CONTENTS[name], page_size))
    done = subprocess.run([bbolt, "check", path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == lines(CONTENTS[name])


@pytest.mark.parametrize("name", CONTENTS)
def test_we_read_what_bbolt_wrote_with_free_pages_and_buckets_inline(bbolt: str, tmp_path: Path, name: str) -> None:
    path = tmp_path / "theirs.db"
    text = "".join(line + "\n" for line in lines(CONTENTS[name]))
    subprocess.run([bbolt, "make", path], input=text, text=True, check=True, timeout=120)
    data = path.read_bytes()
    assert is_bolt(data[:32])
    assert content_of(reader_of(data).root) == CONTENTS[name]


def test_the_writer_refuses_what_bbolt_could_not_find() -> None:
    tree = Writer(lambda page: None).tree()
    tree.put(b"b", b"")
    for key in (b"a", b"b", b"", b"c" * 40_000):
        with pytest.raises(ValueError):
            tree.put(key, b"")


def test_memory_stays_at_some_pages() -> None:
    sizes: list[int] = []
    writer = Writer(lambda page: sizes.append(len(page)))
    tree, value = writer.tree(), b"v" * 100
    for number in range(100_000):
        tree.put(b"%012d" % number, value)
        assert len(tree._leaf) < 40
    writer.finish(tree)
    assert sum(len(level.items) for level in tree._levels) < 1000
    assert max(sizes) == 4096


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"", InputError), (b"hello" * 1000, InputError), (write({b"a": {b"b": b"c"}})[:-4096], CorruptError)],
)
def test_what_is_no_database_is_refused(data: bytes, kind: type[ApplianceError]) -> None:
    with pytest.raises(kind):
        content_of(reader_of(data).root)


def test_the_other_meta_page_serves_when_one_is_torn() -> None:
    data = write({b"a": {b"b": b"c"}}, 16384)
    for offset in (0, 16384):
        torn = data[: offset + 30] + b"\xff" + data[offset + 31 :]
        assert content_of(reader_of(torn).root) == {b"a": {b"b": b"c"}}


WHOLE = write({b"key": big(60), b"deep": {b"er": {b"x": b"y"}}}, 512)


@given(st.integers(1024, len(WHOLE) - 1), st.integers(0, 255), st.integers(1, 4))
@settings(deadline=None, max_examples=300)
def test_a_damaged_file_ends_in_an_answer(at: int, octet: int, width: int) -> None:
    damaged = WHOLE[:at] + bytes([octet]) * width + WHOLE[at + width :]
    with contextlib.suppress(CorruptError):
        content_of(reader_of(damaged[: len(WHOLE)]).root)
