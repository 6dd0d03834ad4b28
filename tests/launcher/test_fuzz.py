"""The C that reads foreign bytes, fed with what nobody would write. Longer: raise SECONDS."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.launcher import test_archive
from tests.launcher.conftest import LAUNCHER, checked, lines

SECONDS = 5
SEEDS = {
    "record": [checked(lines()), checked(lines(sequence=3)) + checked(lines(rest="denied 1 2\n")), lines().encode()],
    "archive": [
        test_archive.header(b"d", b"lib") + test_archive.header(b"f", b"lib/x", size=3) + b"abc" + test_archive.END,
        test_archive.pack.FOOTER.pack(*test_archive.GOOD),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("target", ["record", "archive"])
def test_fuzz(target: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS[target]):
        (corpus / str(number)).write_bytes(seed)
    source = (LAUNCHER / f"{target}.c").read_text()
    if target == "record":  # no fuzzer guesses a checksum: let any pass, so that what stands behind it is reached
        easier = source.replace("memcmp(copy + start + sizeof CHECK - 1, wanted, 8) ? 0 : start", "(void)wanted, start")
        assert easier != source
        source = easier
    (tmp_path / f"{target}.c").write_text(source)
    program = tmp_path / "fuzz"
    here = Path(__file__).parent
    flags = ["-std=gnu17", "-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    command = ["clang", *flags, f"-I{LAUNCHER}", "-o", program, here / f"fuzz_{target}.c", tmp_path / f"{target}.c"]
    subprocess.run(command, check=True)
    limits = [f"-max_total_time={SECONDS}", "-max_len=9000", "-timeout=10", "-print_final_stats=1"]
    done = subprocess.run([program, *limits, corpus], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    executed = int(done.stderr.split("stat::number_of_executed_units:")[1].split()[0])
    assert executed > 1000
