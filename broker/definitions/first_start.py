"""Definitions imported at each start, and the users and virtual hosts of the first start.

What the definitions have is not changed by the rest.  As with RabbitMQ, definitions come back at
each start, while a user or a virtual host of the first start that was deleted stays away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path

from fluffle.broker.access.passwords import hashed
from fluffle.broker.access.users import ADMINISTRATOR, Permission, User
from fluffle.broker.base.callbacks import completion_of
from fluffle.broker.config.config import DEFAULT_USER, DEFAULT_VHOST, Config, UserRights
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.changes import keep, new_settings
from fluffle.broker.durability.definitions.image import FirstStart
from fluffle.broker.metadata.change import NOTHING, Change, Fact, Kind
from fluffle.broker.metadata.metadata import Metadata
from fluffle.broker.patterns.patterns import found

NAME = "internal_definitions_hash"
"""Global parameter that holds the hash of the last import, shared by the nodes of a cluster.

RabbitMQ does not import parameters whose names begin so."""


def fingerprint(files: Sequence[Path]) -> str:
    """Return a hash of all that the files hold."""
    total = sha256()
    for file in files:
        total.update(sha256(file.read_bytes()).digest())
    return total.hexdigest()


def noted(catalogue: Catalogue) -> str | None:
    """Return the fingerprint of the last import; None before there was one."""
    entry = catalogue.kept.entries[Kind.GLOBAL_PARAMETER].get((NAME,))
    return None if entry is None else str(entry["value"])


def note(digest: str) -> Change:
    """Have it known that these have been imported."""
    return keep(Kind.GLOBAL_PARAMETER, {"name": NAME, "value": digest})


EVERYWHERE = UserRights()


async def load_definitions(catalogue: Catalogue, config: Config, metadata: Metadata) -> list[str]:
    """Import what `config` names; what was skipped and why, a sentence each.  DefinitionsError.

    All files are read before the first is imported.
    """
    if config.definitions is None:
        return []
    from fluffle.broker.definitions.file_format import files_of, read_file  # noqa: PLC0415  slow,
    from fluffle.broker.definitions.importer import import_definitions  # noqa: PLC0415  and seldom used

    files = files_of(config.definitions)
    definitions = [read_file(file) for file in files]
    digest = fingerprint(files) if config.definitions_skip_unchanged else None
    if digest is not None and noted(catalogue) == digest:
        return []
    skipped: list[str] = []
    for each in definitions:
        skipped += await import_definitions(each, catalogue, metadata)
    if digest is not None:
        await completion_of(partial(metadata.settle, partial(note, digest)))
    return skipped


def first_start(catalogue: Catalogue, config: Config) -> Change:
    """Return the users and virtual hosts that are configured, with a note that they have been made.

    These users may do everything in every virtual host there is then, unless it is said that one
    may do less.  The note comes last: if the
    process ends before it is on disk, the next start is a first one again.  Nothing if it is there,
    as it may be in a cluster: then another node came first.
    """
    if catalogue.kept.first_start is not None:
        return NOTHING
    vhosts = [name for name in config.vhosts if name not in catalogue.vhosts]
    facts = [Fact(Kind.VHOST, (name,), new_settings(catalogue)) for name in vhosts]
    for name, password in config.users.items():
        if name not in catalogue.access.users:
            tags = config.user_tags.get(name, (ADMINISTRATOR,))
            user = User(name, hashed(password.encode()), tags)
            facts.append(Fact(Kind.USER, (name,), user))
            rights = config.user_rights.get(name, EVERYWHERE)
            facts += [
                Fact(Kind.PERMISSION, (name, vhost), permission_of(rights))
                for vhost in (*catalogue.vhosts, *vhosts)
                if found(rights.vhosts, vhost)
            ]
    made = FirstStart(tuple(config.users), tuple(config.vhosts))
    note = Fact(Kind.STARTED, (), made)
    return Change(puts=(*facts, note), rests_on=tuple(fact.name for fact in (*facts, note)))


def permission_of(rights: UserRights) -> Permission:
    return Permission(rights.configure, rights.write, rights.read)


def ignored_after_first_start(catalogue: Catalogue, config: Config, made: FirstStart) -> str | None:
    """Return how to make the users and virtual hosts that are configured, as commands, if any is
    missing.

    What was `made` at the first start has been deleted on purpose.  guest and / do not count
    either: nobody has asked for them.
    """
    vhosts = missing(config.vhosts, (*catalogue.vhosts, *made.vhosts, DEFAULT_VHOST))
    users = missing(config.users, (*catalogue.access.users, *made.users, DEFAULT_USER))
    if not (vhosts or users):
        return None
    from shlex import quote  # noqa: PLC0415  seldom used

    commands = [f"fluffle vhosts add {quote(name)}" for name in vhosts]
    for name in map(quote, users):
        commands += [f"fluffle users add {name}", f"fluffle permissions set {name} '.*' '.*' '.*'"]
    return "; ".join(commands)


def missing(wanted: Iterable[str], there: Sequence[str]) -> list[str]:
    """Yield what is configured and does not exist."""
    return [name for name in wanted if name not in there]
