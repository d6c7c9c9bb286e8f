"""What a node begins with: definitions at each start, users and virtual hosts at the first.

What the definitions have is not changed by the rest.  As with RabbitMQ, definitions come back at
each start, while a user or a virtual host of the first start that was deleted stays away.
"""

from collections.abc import Iterable, Sequence
from shlex import quote

from fluffle.broker.config import DEFAULT_USER, DEFAULT_VHOST, Config
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.importing import import_definitions
from fluffle.broker.definitions.reading import read_file
from fluffle.broker.facts import Kind
from fluffle.broker.recording.image import FirstStart


def load_definitions(catalogue: Catalogue, config: Config) -> list[str]:
    """Import what `config` names; what was skipped, a sentence each.  DefinitionsError."""
    if config.definitions is None:
        return []
    return import_definitions(read_file(config.definitions), catalogue)


def first_start(catalogue: Catalogue, config: Config) -> None:
    """Make the users and virtual hosts that are configured, and note that it has been done.

    These users may do everything in every virtual host there is now.  The note comes last: if the
    process ends before it is on disk, the next start is a first one again.
    """
    for name in config.vhosts:
        catalogue.vhost(name)
    for name, password in config.users.items():
        if name not in catalogue.access.users:
            catalogue.access.grant_everything(name, password.encode(), catalogue.vhosts)
    catalogue.facts.put(Kind.STARTED, (), FirstStart(tuple(config.users), tuple(config.vhosts)))


def ignored_after_first_start(catalogue: Catalogue, config: Config, made: FirstStart) -> str | None:
    """How to make the users and virtual hosts that are configured, as commands, if any is missing.

    What was `made` at the first start has been deleted on purpose.  guest and / do not count
    either: nobody has asked for them.
    """
    vhosts = missing(config.vhosts, (*catalogue.vhosts, *made.vhosts, DEFAULT_VHOST))
    users = missing(config.users, (*catalogue.access.users, *made.users, DEFAULT_USER))
    commands = [f"fluffle vhosts add {quote(name)}" for name in vhosts]
    for name in map(quote, users):
        commands += [f"fluffle users add {name}", f"fluffle permissions set {name} '.*' '.*' '.*'"]
    return "; ".join(commands) or None


def missing(wanted: Iterable[str], there: Sequence[str]) -> list[str]:
    """What is not there."""
    return [name for name in wanted if name not in there]
