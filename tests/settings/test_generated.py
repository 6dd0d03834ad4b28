"""Settings made from the schema: right ones are taken and say the same again, of others just the fault is told."""

from __future__ import annotations

from collections import Counter
from random import Random

from appliance import settings
from appliance.schema import to_plain, to_toml
from settings.generated import broken, key_in, whole

DOCUMENTS = 200


def test_whole_ones_are_taken_and_survive_being_written() -> None:
    keys: Counter[str] = Counter()
    for seed in range(DOCUMENTS):
        text = to_toml(whole(Random(seed)))
        value = settings.load_texts([("/x", text)]).require()
        assert settings.load_texts([("/x", to_toml(to_plain(value)))]).require() == value, seed
        keys.update(line.partition(" =")[0] for line in text.splitlines() if " = " in line)
    assert {"repository", "listen", "quota", "start", "mtu", "recovery_password_hash", "endpoints"} <= keys.keys()


def test_of_one_broken_thing_its_place_is_told() -> None:
    told: Counter[str] = Counter()
    for seed in range(DOCUMENTS):
        random = Random(seed)
        made = broken(random, whole(random))
        if made is None:
            continue
        document, path, what = made
        text = to_toml(document)
        found = settings.check(text, "x")
        errors = [one for one in found if one.severity == "error"]
        at_it = [one for one in errors if one.path == path or one.path.startswith(f"{path}[")]
        assert at_it, (seed, path, what, errors)
        assert len(errors) == 1 or what == "misspelt", (seed, path, what, errors)
        line = text.splitlines()[at_it[0].line - 1]
        assert key_in(line, at_it[0].path), (seed, at_it[0], line)
        told[what if what == "misspelt" else "value"] += 1
    assert min(told["misspelt"], told["value"]) > DOCUMENTS / 5, told
