"""What somebody meant who typed a command that there is not: a typing error, or RabbitMQ's word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

RABBITMQCTL: Mapping[str, str] = {
    **{
        f"list_{things}": f"{things} list"
        for things in (
            "users",
            "vhosts",
            "permissions",
            "queues",
            "exchanges",
            "bindings",
            "connections",
            "channels",
            "consumers",
        )
    },
    "list_user_permissions": "permissions list",
    "list_topic_permissions": "permissions topic-list",
    "list_user_limits": "users list",
    "list_vhost_limits": "vhosts list",
    "add_user": "users add",
    "delete_user": "users delete",
    "change_password": "users password",
    "clear_password": "users password",
    "authenticate_user": "users authenticate",
    "set_user_tags": "users tags",
    "set_user_limits": "users limits",
    "clear_user_limits": "users limits",
    "add_vhost": "vhosts add",
    "delete_vhost": "vhosts delete",
    "set_vhost_limits": "vhosts limits",
    "update_vhost_metadata": "vhosts default-queue-type",
    "clear_vhost_limits": "vhosts limits",
    "set_permissions": "permissions set",
    "clear_permissions": "permissions clear",
    "set_topic_permissions": "permissions topic-set",
    "clear_topic_permissions": "permissions topic-clear",
    "purge_queue": "queues purge",
    "delete_queue": "queues delete",
    "close_connection": "connections close",
    "close_all_connections": "connections close",
    "close_all_user_connections": "connections close",
    "export_definitions": "definitions export",
    "import_definitions": "definitions import",
    "ping": "status",
    "cluster_status": "cluster status",
    "join_cluster": "cluster add",
    "forget_cluster_node": "cluster forget",
    "quorum_status": "queues members",
    "add_member": "queues add-member",
    "delete_member": "queues delete-member",
    "grow": "queues grow",
    "shrink": "queues shrink",
    "rebalance": "queues rebalance",
}
"""Verbs of rabbitmqctl and rabbitmq-queues, and the command that does the same here."""


def suggestion(typed: str, commands: Iterable[str]) -> str:
    """The end of a sentence: what to type in its place, if anything looks like it."""
    if typed in RABBITMQCTL:
        return f"; what RabbitMQ calls so is `fluffle {RABBITMQCTL[typed]}`"
    near = get_close_matches(typed, [*commands, *RABBITMQCTL], n=1)
    return f"; did you mean `fluffle {RABBITMQCTL.get(near[0], near[0])}`?" if near else ""
