"""etcd's v3 API, gRPC and JSON, in words of the store.

``EtcdApi(store, identity_of(name), unix_path=...).run`` is the service. From the wire up: ``hpack``, ``frames``,
``outgoing``, ``http2`` (framing, pure), ``grpc``, ``statuses``, ``messages`` (words), then one verb family per file.
"""

from appliance.etcdapi.identity import Identity, identity_as_etcd, identity_of
from appliance.etcdapi.listening import Listen
from appliance.etcdapi.options import DEFAULTS as API_DEFAULTS
from appliance.etcdapi.options import ApiOptions, json_web_tokens
from appliance.etcdapi.service import EtcdApi
from appliance.etcdapi.tokens import Tokens

__all__ = [
    "API_DEFAULTS", "ApiOptions", "EtcdApi", "Identity", "Listen", "Tokens", "identity_as_etcd", "identity_of",
    "json_web_tokens",
]  # fmt: skip
