"""What test_verbs asks of etcdctl, by subject: (arguments, standard input). ``{lease}`` is the one granted last."""

from __future__ import annotations

Step = tuple[str, str]
FORMATS = ["simple", "json", "fields", "table", "protobuf"]


def plain(*steps: str) -> list[Step]:
    return [(step, "") for step in steps]


def each_format(*steps: str) -> list[Step]:
    return [(f"{step} -w {form}", "") for step in steps for form in FORMATS]


def txn(*inputs: str) -> list[Step]:
    return [("txn", each) for each in inputs]


FILL = plain(
    "put foo bar", "put foo bar2", "put foo1 a", "put foo2 b", "put foo3 zz", "put foo1 aa", "put g x", "del g",
    "put 'sp ace' 'va lue'", "put g again",
)  # fmt: skip
SORTS = ["CREATE", "KEY", "MODIFY", "VALUE", "VERSION"]
COMPARES = [
    'value("foo") = "bar"', 'value("foo") != "bar"', 'value("foo") < "baz"', 'value("foo") > "baz"',
    'val("foo") = "bar"', 'mod("foo") = "2"', 'm("foo") > "1"', 'mod("foo") < "2"', 'mod("foo") != "2"',
    'create("foo") = "2"', 'c("foo") = "0"', 'c("none") = "0"', 'ver("foo") = "1"', 'version("foo") > "0"',
    'ver("none") = "0"', 'ver("none") > "0"', 'ver("none") != "0"', 'value("none") = ""', 'value("none") != "x"',
    'value("none") < "x"', 'value("none") > ""', 'value("foo") = "bar"\nmod("foo") = "2"',
    'value("foo") = "bar"\nmod("foo") = "3"', 'nonsense("foo") = "1"', 'mod("foo") = "x"', 'mod(foo) = "2"', "",
]  # fmt: skip
SUBJECTS: dict[str, list[Step]] = {
    "get": [
        *FILL,
        *each_format(
            "get foo", "get nope", "get --prefix foo", "get --prefix foo --keys-only", "get --prefix foo --limit 2",
            "get foo --rev=3",
        ),
        *plain(
            *(f"get --prefix foo --order {order} --sort-by {by}" for order in ("ASCEND", "DESCEND") for by in SORTS),
            *(f"get --prefix foo --sort-by {by}" for by in SORTS),
            "get --prefix foo --order DESCEND", "get --prefix foo --order ASCEND --limit 1",
            "get --prefix foo --sort-by NONE", "get --prefix foo --order sideways", "get foo --consistency=s",
            "get foo --consistency=l", "get foo --consistency=x", "get --from-key foo1",
            "get --from-key foo1 --limit 1 -w json", "get --from-key ''", "get --prefix ''", "get foo foo2 --prefix",
            "get foo foo2 --from-key", "get foo --prefix --from-key", "get foo foo3 --rev=4", "get foo --rev=0",
            "get foo --rev=-5", "get foo --rev=99", "get --prefix '' --rev=9 -w json", "get g --rev=8", "get g --rev=9",
            "get foo foo", "get foo2 foo", "get foo --print-value-only --hex", "get --prefix sp -w fields",
            "get foo --count-only -w fields", "get foo --prefix --count-only", "get", "get a b c",
            "get foo -w nonsense",
            "get foo --limit=-1", "get --prefix foo --limit 3 --sort-by VALUE --order DESCEND -w json",
            "get --prefix foo --rev=5 --sort-by MODIFY --order DESCEND -w json",
        ),
    ],
    "put": [
        *each_format("put a b", "put a c --prev-kv", "put new v --prev-kv"),
        ("put", ""), ("put a", "from standard input\n"), ("put '' x", ""),
        *plain(
            "put a --ignore-value", "put a b --ignore-value", "put none --ignore-value", "put a z --ignore-lease",
            "put none z --ignore-lease", "lease grant 500", "put l v --lease={lease}", "put l w --ignore-lease",
            "get l -w json", "put l --ignore-value --lease={lease} --prev-kv", "put l --ignore-value",
            "put l w --ignore-lease --lease={lease}", "get l", "put l v --lease=zz", "put l v --lease=0",
            "put l v --lease=77", "put l v --lease=-1", "put -- -k -v", "get -- -k",
        ),
    ],
    "del": [
        *FILL,
        *each_format("del foo --prev-kv", "del foo1 foo3 --prev-kv", "del none", "del --prefix foo --prev-kv"),
        *plain(
            "put a 1", "put b 2", "put c 3", "del --from-key b", "get --prefix ''", "del b a", "del a a", "del ''",
            "del --prefix ''", "put a 1", "put b 2", "del --prefix '' --prev-kv -w json", "put a 1",
            "del --from-key '' -w json", "get --prefix '' -w json", "del", "del a b c", "del a b --prefix",
            "del a --prefix --from-key",
        ),
    ],
    "txn": [
        ("put foo bar", ""),
        *txn(*(f"{each}\n\nput ok 1\nget ok\n\nput no 1\nget --prefix no\n\n" for each in COMPARES)),
        *((f"txn -w {form}", 'value("foo") = "bar"\n\nput a b\nget a\nget --prefix fo\ndel a --prev-kv\n\n\n')
          for form in FORMATS),
        *((f"txn -w {form}", 'value("foo") = "never"\n\nput a b\n\nget foo --keys-only\ndel none\n\n')
          for form in FORMATS),
        *txn(
            "\nput s 1\nput s 2\n\n\n", "\nput s 1\n\nput s 2\n\n", "\nput s 1\ndel s\n\n\n", "\ndel s\nput s 1\n\n\n",
            "\ndel --prefix s\nput sx 1\n\n\n", "\ndel s\ndel s\n\n\n", "\nget s\nput s 1\nget s\n\n\n",
            "\nget --rev=1000 foo\n\n\n", "\nget --rev=2 foo\nput foo x\n\n\n", "\nput foo --ignore-value\n\n\n",
            "\nput none --ignore-value\n\n\n", "\nget foo --rev=-1\n\n\n",
            "\n" + "".join(f"put k{number} v\n" for number in range(128)) + "\n\n",
            "\n" + "".join(f"put k{number} v\n" for number in range(129)) + "\n\n",
            'mod("foo") > "0"\n' * 128 + "\nget foo\n\n\n", 'mod("foo") > "0"\n' * 129 + "\nget foo\n\n\n", "\n\n\n",
        ),
        ("txn -i", 'value("foo") = "bar"\n\nput ok 1\n\nget foo\n\n'),
    ],
    "lease": [
        *plain(*(f"lease {verb} 1234 -w {form}" for verb in ("timetolive", "revoke") for form in FORMATS[:4])),
        ("lease grant 5000", ""), ("put x y --lease={lease}", ""), ("put z y --lease={lease}", ""),
        *plain(
            "lease timetolive {lease} --keys", "lease timetolive {lease} -w json", "lease timetolive {lease} -w table",
            "lease keep-alive --once {lease}", "lease keep-alive --once {lease} -w json",
            "lease keep-alive --once 1234", "lease keep-alive 1234", "lease list", "lease revoke {lease} -w json",
            "get x", "lease timetolive {lease}", "lease revoke {lease}", "lease keep-alive --once {lease}",
            "lease grant 0", "lease grant -- -1", "lease grant abc", "lease grant 9000000000",
            "lease grant 9000000001", "lease grant", "lease revoke", "lease revoke zz", "lease timetolive zz",
            "lease timetolive 0", "lease revoke 0", "lease keep-alive zz",
        ),
    ],
    "members and upkeep": [
        *each_format("member list", "endpoint health"),
        *plain(
            "endpoint status", "endpoint status -w json", "endpoint status -w fields", "endpoint status -w table",
            "endpoint hashkv", "endpoint hashkv -w json", "endpoint hashkv -w fields", "endpoint health --cluster",
            "endpoint status --cluster", "endpoint hashkv --cluster", "alarm list", "alarm disarm",
            "alarm disarm -w json", "defrag",
            "defrag --cluster",
            "member add", "member add x", "member add x --peer-urls=nonsense", "member remove", "member remove zz",
            "member remove 1234", "member update 1234 --peer-urls=http://127.0.0.1:1", "member update 1234",
            "member promote 1234", "member promote zz", "move-leader 1", "move-leader", "move-leader zz",
            "put a 1", "put a 2", "put a 3", "compact", "compact x", "compact 99", "compact 0", "compact 0",
            "compact -- -1", "compact 2 --physical", "compact 2", "compact 3 -w json", "compact 4 --physical -w json",
            "get a --rev=3", "get a --rev=4", "version", "snapshot save", "elect", "elect a b c", "lock",
            "lock l -- true", "lock l -- false", "lock l -- sh -c 'exit 7'", "get --prefix l", "nonsense",
        ),
    ],
    "users": [
        *each_format("user list", "role list"),
        *plain(
            "auth enable", "auth disable", "role add root -w json", "user add root:pw -w json",
            "user grant-role root root -w json", "user get root --detail", "role add r",
            *(f"role grant-permission r {each}" for each in (
                "read a", "write b", "readwrite c d", "read p --prefix", "write f --from-key", "readwrite '' --prefix",
                "read '' --from-key", "nonsense a", "read", "read a b c", "read z y", "READ up", "read x x")),
        ),
        *each_format("role get r", "user get root"),
        *plain(
            *(f"role revoke-permission r {each}" for each in (
                "a", "a", "c d", "p --prefix", "f --from-key", "'' --prefix", "'' --from-key", "nonsense", "")),
            "role revoke-permission none a", "role get r", "user add u:p", "user add u:p",
            "user add v --new-user-password=pp", "user add w --no-password", "user add :p", "user add",
        ),
        ("user add i --interactive=false", "secret\n"), ("user passwd u --interactive=false", "np\n"),
        ("user passwd none --interactive=false", "np\n"),
        *plain(
            "user grant-role u r", "user grant-role u r", "user grant-role u none", "user grant-role none r",
            "user revoke-role u none", "user revoke-role u r", "user revoke-role u r", "user grant-role u r",
            "user get u", "user delete v -w json", "user delete v", "role delete r -w json", "user get u",
            "role delete r", "role get none", "user get none", "auth enable", "auth enable", "get a", "auth status",
            "--user u:np get a", "--user u:bad get a", "--user u: get a", "--user u --password np get a",
            "--user w:x get a",
            *(f"--user root:pw {each}" for each in (
                "auth status", "role add r2", "role grant-permission r2 readwrite k --prefix", "user grant-role u r2")),
            *(f"--user u:np {each}" for each in (
                "put k1 v", "put j v", "get k --prefix", "get k --from-key", "del k --prefix", "watch j",
                "lease grant 500", "member list", "endpoint health", "alarm list", "alarm disarm", "compact 1",
                "move-leader 1", "member remove 1234", "member promote 1234", "lock k -- true", "lock j -- true",
                "user get u", "user get root", "role get r2", "role get root", "auth status", "user list", "role list",
                "auth enable", "user delete u")),
            "member list", "lease grant 10", "endpoint health", "alarm list", "compact 1", "member remove 1234",
            "lease timetolive 77", "lease revoke 77", "--user root:pw user delete root",
            "--user root:pw user revoke-role root root", "--user root:pw auth disable", "auth status", "get k1",
        ),
    ],
    "limits": [
        ("put big", "x" * (1 << 20)), ("get big --keys-only", ""), ("put big", "x" * 1_572_800),
        ("put big", "x" * 1_572_850), ("put big", "x" * 1_572_864), ("put big", "x" * 2_200_000),
        ("txn", "\nput k " + "y" * 900_000 + "\nput k2 " + "y" * 900_000 + "\n\n\n"),
        ("put " + "k" * 100_000, "v"), ("get --prefix k --keys-only -w json", ""),
    ],
}  # fmt: skip
