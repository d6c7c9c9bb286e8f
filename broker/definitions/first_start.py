"""What a node begins with: definitions at each start, users and virtual hosts at the first.

What the definitions have is not changed by the rest.  As with RabbitMQ, definitions come back at
each start, while a user or a virtual host of the first start that was deleted stays away.
"""

from collections.abc import Iterable, Sequence

from fluffle.broker.access.limits import VhostSettings
from fluffle.broker.access.passwords import hashed
from fluffle.broker.access.permissions import EVERYTHING
from fluffle.broker.access.users import ADMINISTRATOR, User
from fluffle.broker.config import DEFAULT_USER, DEFAULT_VHOST, Config
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.facts import Kind
from fluffle.broker.metadata.change import NOTHING, Change, Fact
from fluffle.broker.metadata.changing import Metadata
from fluffle.broker.recording.image import FirstStart


async def load_definitions(catalogue: Catalogue, config: Config, metadata: Metadata) -> list[str]:
    """Import what `config` names; what was skipped and why, a sentence each.  DefinitionsError."""
    if config.definitions is None:
        return []
    from fluffle.broker.definitions.importing import import_definitions  # noqa: PLC0415  slow,
    from fluffle.broker.definitions.reading import read_file  # noqa: PLC0415  and seldom used

    return await import_definitions(read_file(config.definitions), catalogue, metadata)


def first_start(catalogue: Catalogue, config: Config) -> Change:
    """The users and virtual hosts that are configured, with a note that they have been made.

    These users may do everything in every virtual host there is then.  The note comes last: if the
    process ends before it is on disk, the next start is a first one again.  Nothing if it is there,
    as it may be in a cluster: then another node came first.
    """
    if catalogue.kept.first_start is not None:
        return NOTHING
    vhosts = [name for name in config.vhosts if name not in catalogue.vhosts]
    facts = [Fact(Kind.VHOST, (name,), VhostSettings()) for name in vhosts]
    for name, password in config.users.items():
        if name not in catalogue.access.users:
            user = User(name, hashed(password.encode()), (ADMINISTRATOR,))
            facts.append(Fact(Kind.USER, (name,), user))
            facts += [
                Fact(Kind.PERMISSION, (name, vhost), EVERYTHING)
                for vhost in (*catalogue.vhosts, *vhosts)
            ]
    made = FirstStart(tuple(config.users), tuple(config.vhosts))
    note = Fact(Kind.STARTED, (), made)
    return Change(puts=(*facts, note), rests_on=tuple(fact.name for fact in (*facts, note)))


def ignored_after_first_start(catalogue: Catalogue, config: Config, made: FirstStart) -> str | None:
    """How to make the users and virtual hosts that are configured, as commands, if any is missing.

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
    """What is not there."""
    return [name for name in wanted if name not in there]
