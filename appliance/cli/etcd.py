"""``appliance etcd``: the store alone, started with etcd's own flags and ETCD_* variables."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from appliance.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.etcd_app import EtcdOptions
    from appliance.etcdapi import ApiOptions, Listen, Tokens
    from appliance.host.tls import TlsFiles

_EPILOG = """Takes etcd's flags and its ETCD_* variables; those that mean nothing for one member are accepted and
noted in the log. It serves the v3 API only, and is one member: for more, run etcd.

Examples:
  appliance etcd --data-dir /tmp/data
  appliance etcd --config-file /etc/etcd.yaml
  appliance etcd --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379
"""
_CLIENT_URL, _PEER_URL = "http://localhost:2379", "http://localhost:2380"
_USED = {
    "name": "default", "data-dir": "", "listen-client-urls": _CLIENT_URL, "advertise-client-urls": _CLIENT_URL,
    "listen-metrics-urls": "", "initial-advertise-peer-urls": _PEER_URL, "initial-cluster": "", "cert-file": "",
    "key-file": "", "trusted-ca-file": "", "client-cert-auth": "false", "auto-tls": "false", "discovery": "",
    "discovery-srv": "", "proxy": "off", "config-file": "", "auth-token": "simple", "auth-token-ttl": "300",
    "auto-compaction-mode": "periodic", "auto-compaction-retention": "0", "log-outputs": "default",
    "log-output": "default", "unsafe-no-fsync": "false", "client-crl-file": "",
    "client-cert-allowed-hostname": "", "max-txn-ops": "128", "max-request-bytes": "1572864",
    "quota-backend-bytes": "0", "cors": "*", "bcrypt-cost": "10", "max-concurrent-streams": "4294967295",
    "cipher-suites": "", "tls-min-version": "", "tls-max-version": "",
    "experimental-watch-progress-notify-interval": "10m", "initial-cluster-token": "etcd-cluster",
}  # fmt: skip
_HARMLESS = (
    "listen-peer-urls", "initial-cluster-state", "snapshot-count", "heartbeat-interval",
    "election-timeout", "initial-election-tick-advance", "max-snapshots", "max-wals", "wal-dir",
    "strict-reconfig-check", "pre-vote", "logger", "log-level", "debug", "log-package-levels", "enable-grpc-gateway",
    "grpc-keepalive-min-time", "grpc-keepalive-interval", "grpc-keepalive-timeout",
    "backend-batch-interval", "backend-batch-limit", "metrics", "log-format",
    "log-rotation-config-json", "socket-reuse-port", "socket-reuse-address",
    "enable-log-rotation",
)  # fmt: skip
_WITHOUT_EFFECT = (
    "host-whitelist", "enable-v2", "enable-pprof", "force-new-cluster",
    "peer-cert-file", "peer-key-file", "peer-client-cert-auth", "peer-trusted-ca-file",
    "peer-auto-tls", "peer-crl-file", "peer-cert-allowed-cn", "peer-cert-allowed-hostname", "discovery-fallback",
    "discovery-proxy", "discovery-srv-name", "proxy-failure-wait", "proxy-refresh-interval", "proxy-dial-timeout",
    "proxy-write-timeout", "proxy-read-timeout", "self-signed-cert-validity", "v2-deprecation",
    "experimental-initial-corrupt-check", "experimental-corrupt-check-time", "experimental-enable-v2v3",
    "experimental-backend-bbolt-freelist-type", "experimental-enable-lease-checkpoint",
    "experimental-enable-lease-checkpoint-persist", "experimental-compaction-batch-limit",
    "experimental-warning-apply-duration",
    "experimental-peer-skip-client-san-verification", "experimental-memory-mlock", "experimental-max-learners",
    "experimental-txn-mode-write-with-shared-buffer", "experimental-enable-distributed-tracing",
    "experimental-bootstrap-defrag-threshold-megabytes", "experimental-compact-hash-check-enabled",
    "experimental-compact-hash-check-time", "experimental-compaction-sleep-interval",
    "experimental-warning-unary-request-duration", "experimental-stop-grpc-service-on-defrag",
    "experimental-snapshot-catchup-entries", "experimental-downgrade-check-time",
)  # fmt: skip
_NOT_FLAGS = {"ETCD_UNSUPPORTED_ARCH", "ETCDCTL_API"}
_TRUE = {"true", "1", "t", "T", "TRUE", "True"}
_QUOTA_BYTES = 2 << 30  # etcd's, when none is given
_ANY_HOST = ("0.0.0.0", "::")
_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every flag of etcd's, with one dash or two, as Go takes them; a switch needs no value."""
    parser.epilog = _EPILOG
    for flag in (*_USED, *_HARMLESS, *_WITHOUT_EFFECT):
        shown = None if flag in _USED else argparse.SUPPRESS
        parser.add_argument(f"--{flag}", f"-{flag}", dest=flag, nargs="?", const="true", metavar="VALUE", help=shown)


def run(args: argparse.Namespace) -> int:
    """Until it is stopped."""
    from appliance.host import process_self
    from appliance.host.signals import Signals

    options = options_of({name: value for name, value in vars(args).items() if value is not None}, dict(os.environ))
    signals = Signals()
    signals.take_over()
    process_self.pause_garbage_collection()
    from appliance.etcd_app import run as run_etcd

    return run_etcd(options, signals)


def options_of(flags: dict[str, object], environment: dict[str, str]) -> EtcdOptions:
    """Flags win over variables. Raises InputError for what we cannot be."""
    from appliance.etcd_app import EtcdOptions

    notes: list[str] = []
    file = str(flags.get("config-file") or environment.get("ETCD_CONFIG_FILE", ""))
    if file:  # an etcd then looks at nothing else
        flags, environment = _from_file(file, notes), {}
    known = {f"ETCD_{flag.upper().replace('-', '_')}": flag for flag in (*_USED, *_HARMLESS, *_WITHOUT_EFFECT)}
    given: dict[str, str] = {}
    for variable, text in environment.items():
        if variable in known:
            given[known[variable]] = text
        elif variable.startswith("ETCD_") and variable not in _NOT_FLAGS:
            notes.append(f"unrecognized environment variable {variable}")
    given |= {name: str(each) for name, each in flags.items() if name in known.values()}
    notes += [f"--{flag} has no effect here" for flag in given if flag in _WITHOUT_EFFECT]
    value = {**_USED, **given}
    data_dir = os.path.abspath(value["data-dir"] or f"{value['name']}.etcd")
    _refuse_what_we_are_not(value, notes)
    tls = _tls(value, data_dir)
    listen, unix_path = _listeners(value, tls, notes)
    mode, retention = value["auto-compaction-mode"], value["auto-compaction-retention"]
    if mode not in ("periodic", "revision"):
        raise InputError(f'cannot use --auto-compaction-mode "{mode}": it is "periodic" or "revision"')
    return EtcdOptions(
        name=value["name"],
        data_dir=data_dir,
        listen=listen,
        unix_path=unix_path,
        client_urls=_urls(value["advertise-client-urls"]),
        peer_urls=_urls(value["initial-advertise-peer-urls"]),
        initial_peer_urls=tuple(each.partition("=")[2] for each in _urls(value["initial-cluster"])),
        cluster_token=value["initial-cluster-token"],
        compact_every_seconds=_seconds("auto-compaction-retention", retention) if mode == "periodic" else 0.0,
        compact_revisions=_whole("auto-compaction-retention", retention) if mode == "revision" else 0,
        api=_api(value),
        quota=_quota(value["quota-backend-bytes"]),
        to_stdout="stdout" in value["log-outputs"] + value["log-output"],
        notes=tuple(notes),
    )


def _refuse_what_we_are_not(value: dict[str, str], notes: list[str]) -> None:
    members = {each.partition("=")[0].strip() for each in value["initial-cluster"].split(",") if each.strip()}
    if len(members) > 1:
        raise InputError(
            f"cannot be one of {len(members)} members ({', '.join(sorted(members))}): this is an etcd of one member; "
            "for a cluster run etcd itself (`etcdctl snapshot save` here and `restore` there takes all along)"
        )
    for flag in ("discovery", "discovery-srv"):
        if value[flag]:
            raise InputError(f"cannot use --{flag}: it finds other members, and we are one; for a cluster run etcd")
    if value["proxy"] != "off":
        raise InputError("cannot use --proxy: we are a member, not a proxy")
    if value["client-cert-allowed-hostname"]:
        raise InputError(
            "cannot use --client-cert-allowed-hostname: it would let fewer clients in, and we do not check it"
        )
    if value["unsafe-no-fsync"] in _TRUE:
        notes.append("--unsafe-no-fsync has no effect here: what is acknowledged is on the disk")


def _from_file(path: str, notes: list[str]) -> dict[str, object]:
    from appliance.cli.etcd_config import flags_of
    from appliance.host import files

    found = flags_of(files.read_text(path), path)
    known = {*_USED, *_HARMLESS, *_WITHOUT_EFFECT}
    notes += [f"{path}: {name} is not known, and has no effect" for name in found if name not in known]
    return {name: text for name, text in found.items() if name in known}


def _api(value: dict[str, str]) -> ApiOptions:
    """What shapes the API. Raises InputError."""
    from appliance.etcdapi import ApiOptions
    from appliance.store import Limits

    cost = _whole("bcrypt-cost", value["bcrypt-cost"])
    if not 4 <= cost <= 31:
        raise InputError(f"cannot use --bcrypt-cost {cost}: it is from 4 to 31")
    interval = "experimental-watch-progress-notify-interval"
    return ApiOptions(
        limits=Limits(
            _whole("max-txn-ops", value["max-txn-ops"]), _whole("max-request-bytes", value["max-request-bytes"])
        ),
        token_seconds=float(_whole("auth-token-ttl", value["auth-token-ttl"])),
        tokens=_tokens(value["auth-token"]),
        bcrypt_cost=cost,
        cors=frozenset(_urls(value["cors"])),
        progress_seconds=_seconds(interval, value[interval]) or 600.0,
        streams=_whole("max-concurrent-streams", value["max-concurrent-streams"]),
    )


def _tokens(text: str) -> Callable[[], Tokens] | None:
    """``simple``, or ``jwt,pub-key=FILE,priv-key=FILE,sign-method=RS256,ttl=10m``."""
    kind, _, rest = text.partition(",")
    if kind == "simple":
        return None
    if kind != "jwt":
        raise InputError(f'cannot use --auth-token "{text}": it is "simple" or "jwt,..."')
    known = {"pub-key": "", "priv-key": "", "sign-method": "", "ttl": "5m"}
    for each in rest.split(","):
        name, is_given, word = each.partition("=")
        if name not in known or not is_given:
            raise InputError(f'cannot use --auth-token "{text}": after jwt come {", ".join(known)}')
        known[name] = word
    from appliance.etcdapi import json_web_tokens

    return json_web_tokens(
        known["sign-method"], public_key=known["pub-key"], private_key=known["priv-key"],
        seconds=_seconds("auth-token", known["ttl"]),
    )  # fmt: skip


def _quota(text: str) -> int:
    """0 is etcd's own, less is none."""
    if text.startswith("-"):
        _whole("quota-backend-bytes", text[1:])
        return 0
    return _whole("quota-backend-bytes", text) or _QUOTA_BYTES


def _tls(value: dict[str, str], data_dir: str) -> TlsFiles | None:
    from appliance.host.tls import TlsFiles, cipher_of

    cert, key, authority = value["cert-file"], value["key-file"], value["trusted-ca-file"]
    if value["auto-tls"] in _TRUE and not cert and not key:
        from urllib.parse import urlsplit

        from appliance.host.self_signed import make_self_signed

        hosts = [urlsplit(url).hostname or "" for url in _urls(value["listen-client-urls"])]
        hosts = [host for host in hosts if host and host not in _ANY_HOST] or ["127.0.0.1"]
        cert, key = make_self_signed(os.path.join(data_dir, "fixtures", "client"), [*hosts, "localhost"])
    if value["client-cert-auth"] in _TRUE and not authority:
        raise InputError("cannot use --client-cert-auth without --trusted-ca-file: say whose certificates count")
    if bool(cert) != bool(key):
        raise InputError(f"cannot use --{'cert' if cert else 'key'}-file alone: --cert-file and --key-file go together")
    if not cert:
        return None
    for flag in ("tls-min-version", "tls-max-version"):
        if value[flag] not in ("", "TLS1.2", "TLS1.3"):
            raise InputError(f'cannot use --{flag} "{value[flag]}": it is TLS1.2 or TLS1.3')
    ca, crl = (os.path.abspath(path) if path else None for path in (authority, value["client-crl-file"]))
    ciphers = ":".join(filter(None, map(cipher_of, _urls(value["cipher-suites"]))))
    return TlsFiles(
        os.path.abspath(cert),
        os.path.abspath(key),
        ca,
        crl,
        ciphers,
        value["tls-min-version"],
        value["tls-max-version"],
    )


def _listeners(value: dict[str, str], tls: TlsFiles | None, notes: list[str]) -> tuple[tuple[Listen, ...], str | None]:
    from appliance.etcdapi import Listen
    from appliance.host.sockets import parse_address

    found: list[Listen] = []
    unix_path: str | None = None
    for flag in ("listen-client-urls", "listen-metrics-urls"):
        for url in _urls(value[flag]):
            scheme, colon, rest = url.partition("://")
            if not colon or scheme not in ("http", "https", "unix"):
                raise InputError(f'cannot use --{flag} "{url}": write http://IP:PORT, https://IP:PORT or unix:///PATH')
            if scheme == "unix":
                if unix_path is not None or flag != "listen-client-urls":
                    raise InputError(f'cannot use --{flag} "{url}": there is one unix socket, for clients')
                unix_path = os.path.abspath(rest)
                continue
            if scheme == "https" and tls is None:
                raise InputError(f"cannot use --{flag} {url}: TLS takes --cert-file and --key-file")
            if scheme == "http" and tls is not None and flag == "listen-client-urls":
                notes.append(f"client url {url} is HTTP while key/cert files are presented: ignored there")
            only = flag == "listen-metrics-urls"
            address = parse_address(rest.rstrip("/"))
            found.append(Listen(address, tls if scheme == "https" else None, trusting=not only, side_doors_only=only))
    return tuple(found), unix_path


def _urls(text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(",") if each.strip())


def _whole(flag: str, text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise InputError(f'cannot use --{flag} "{text}": it is a whole number')
    return int(text)


def _seconds(flag: str, text: str) -> float:
    """Go's durations; a bare number is hours, as etcd takes it."""
    import re

    if text.isascii() and text.isdigit():
        return int(text) * 3600.0
    if not re.fullmatch(r"([0-9.]+(ns|us|ms|s|m|h))+", text):
        raise InputError(f'cannot use --{flag} "{text}": write "1h", "30m" or a number of hours')
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9.]+)(ns|us|ms|s|m|h)", text))
