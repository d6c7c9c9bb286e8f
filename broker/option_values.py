"""What the texts of options mean: a function a kind, which raises ValueError with what to write."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from fluffle.broker.config import ListenAddress, memory_bytes

PORT_MAX = 65_535
UNITS: Mapping[str, int] = {"": 1, "b": 1} | {
    f"{prefix}{ending}": int(base**power)
    for power, prefix in enumerate("kmgt", start=1)
    for ending, base in (("", 1000), ("b", 1000), ("i", 1024), ("ib", 1024))
}


def parse_address(text: str) -> ListenAddress:
    """Where to listen: HOST:PORT, [IPv6]:PORT or :PORT."""
    host, colon, port = text.rpartition(":")
    bare_host = host.removeprefix("[").removesuffix("]")
    is_host = host in (bare_host, f"[{bare_host}]") and (":" in bare_host) == (host != bare_host)
    if not (colon and is_host and port.isdecimal() and int(port) <= PORT_MAX):
        raise ValueError("write HOST:PORT such as 127.0.0.1:5672 or [::1]:5672, port 0 for any")
    return ListenAddress(bare_host, int(port))


def parse_client_address(text: str) -> ListenAddress:
    """Where to listen for clients: also unix:PATH."""
    kind, colon, path = text.partition(":")
    if colon and kind == "unix":
        if not path:
            raise ValueError("write unix:PATH such as unix:/run/fluffle/amqp.sock")
        return ListenAddress(str(Path(path).absolute()), 0)
    return parse_address(text)


def parse_peer_address(text: str) -> ListenAddress:
    """HOST:PORT or [IPv6]:PORT, where other nodes reach one."""
    with suppress(ValueError):
        address = parse_address(text)
        if address.host and address.port:
            return address
    raise ValueError(
        "write HOST:PORT such as 10.0.0.4:25672 or [fd00::4]:25672: where the other nodes reach "
        "the --cluster-listen of that node"
    )


def parse_service(text: str) -> ListenAddress:
    """SERVICE:PORT of nodes that DNS knows."""
    with suppress(ValueError):
        return parse_peer_address(text)
    raise ValueError(
        "write SERVICE:PORT such as fluffle.default.svc.cluster.local:25672, with the port of "
        "--cluster-listen"
    )


def parse_peers(text: str) -> dict[str, ListenAddress]:
    """NAME=HOST:PORT,…: the nodes by name."""
    peers = {}
    for peer in text.split(","):
        name, equals, address = peer.partition("=")
        if not equals:
            raise ValueError("write NAME=HOST:PORT, with commas between the nodes")
        peers[parse_name(name)] = parse_peer_address(address)
    return peers


def parse_user(text: str) -> tuple[str, str]:
    """NAME:PASSWORD; a password may hold colons."""
    name, _, password = text.partition(":")
    if not (name and password):
        raise ValueError("write NAME:PASSWORD, neither of them empty")
    return name, password


def parse_name(text: str) -> str:
    """A name that can stand in lists and logs."""
    if not text or not text.isprintable() or set(text) & set(" ,=:"):
        raise ValueError("write a name without spaces, commas, colons and equals signs")
    return text


def parse_vhost(text: str) -> str:
    """The name of a virtual host."""
    if not text:
        raise ValueError("write the name of a virtual host")
    return text


def parse_watermark(text: str) -> int:
    """A share of the memory there is, in bytes."""
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ValueError("write a share of the memory, above 0 and at most 1, such as 0.6")
    return int(share * memory_bytes())


def parse_size(text: str) -> int:
    """A number of bytes, with a unit of powers of 1000 (MB) or of 1024 (MiB)."""
    number = text.rstrip("BGKMTbgikmt ")
    unit = text[len(number) :].strip().lower()
    if not number.isdecimal() or unit not in UNITS:
        raise ValueError("write a number of bytes such as 50MB, 2GiB or 1000000")
    return int(number) * UNITS[unit]


def parse_timeout_ms(text: str) -> int | None:
    """Milliseconds, or `none`."""
    return None if text == "none" else parse_count(text)


def parse_count(text: str) -> int:
    """How many of something, one at least."""
    if not text.isdecimal() or not int(text):
        raise ValueError("write a number, 1 or more")
    return int(text)


def parse_switch(text: str) -> bool:
    """Yes or no, or what TOML and environments call it."""
    words = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if text.lower() not in words:
        raise ValueError("write yes or no")
    return words[text.lower()]


def choice(*words: str) -> Callable[[str], str]:
    """One of `words`, in any case."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"write {', '.join(words[:-1])} or {words[-1]}")
        return text.lower()

    return parse


def parse_loopback_users(text: str) -> frozenset[str]:
    """Names with commas between them, or none."""
    return frozenset() if text == "none" else frozenset(filter(None, text.split(",")))
