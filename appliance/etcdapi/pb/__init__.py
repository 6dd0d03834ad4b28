"""Messages of etcd's wire, made by packaging/proto/generate.sh. Do not edit."""
