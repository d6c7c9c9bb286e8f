"""How pytest-xdist shares the tests of a run among its processes, with `--dist loadfile`."""

from xdist.scheduler import LoadFileScheduling

TOGETHER = "tests/compat"
"""One RabbitMQ is asked by all files of this folder, in their order, and one process writes down
what it says; where it is not asked they are files like others."""


class Sharing(LoadFileScheduling):
    """A file goes to one process, and so does all that must stay together."""

    def _split_scope(self, nodeid: str) -> str:
        is_asked = self.config.getoption("live") or self.config.getoption("record")
        return share_of(nodeid, rabbitmq_is_asked=bool(is_asked))


def share_of(nodeid: str, *, rabbitmq_is_asked: bool) -> str:
    """What goes to the same process as a test; the largest shares are begun first."""
    if rabbitmq_is_asked and nodeid.startswith(f"{TOGETHER}/"):
        return TOGETHER
    return nodeid.partition("::")[0]
