"""How pytest-xdist shares the tests of a run among its processes, with `--dist loadfile`."""

from xdist.scheduler import LoadFileScheduling

TOGETHER = "tests/compat"
"""One RabbitMQ is asked by all files of this folder, in their order, and one test looks at what it
has said in several of them."""


class Sharing(LoadFileScheduling):
    """A file goes to one process, and so does all that must stay together."""

    def _split_scope(self, nodeid: str) -> str:
        return share_of(nodeid)


def share_of(nodeid: str) -> str:
    """What goes to the same process as a test; the largest shares are begun first."""
    return TOGETHER if nodeid.startswith(f"{TOGETHER}/") else nodeid.partition("::")[0]
