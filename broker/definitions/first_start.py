"""What a node without data begins with: the definitions it is given, then users and virtual hosts.

What the definitions have is not changed by the rest.
"""

from fluffle.broker.config import Config
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.importing import import_definitions
from fluffle.broker.definitions.reading import read_file


def first_start(catalogue: Catalogue, config: Config) -> list[str]:
    """Fill an empty catalogue; what was skipped, a sentence each.  DefinitionsError.

    The users that are configured may do everything in every virtual host there is now.
    """
    skipped = []
    if config.definitions is not None:
        skipped = import_definitions(read_file(config.definitions), catalogue)
    for name in config.vhosts:
        catalogue.vhost(name)
    for name, password in config.users.items():
        if name not in catalogue.access.users:
            catalogue.access.grant_everything(name, password.encode(), catalogue.vhosts)
    return skipped
