"""etcd's v3 API, gRPC and JSON, in words of the store."""
