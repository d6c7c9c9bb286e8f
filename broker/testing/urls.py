"""AMQP URLs: how they are written."""

from urllib.parse import quote


def amqp_url(user: str, password: str, address: str, vhost: str, *, scheme: str = "amqp") -> str:
    """`address` is HOST:PORT."""
    name, secret, place = (quote(each, safe="") for each in (user, password, vhost))
    return f"{scheme}://{name}:{secret}@{address}/{place}"
