"""Services of a node that its part in a cluster, or its own quorum queues, are made with."""

from __future__ import annotations

from typing import NamedTuple

from fluffle.broker.config.config import Config
from fluffle.broker.durability.durability import Durability
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.process.environment import Environment
from fluffle.broker.queues.dead_letters import DeadLetterFrom
from fluffle.broker.queues.settings import SettingsFrom
from fluffle.broker.runtime.runtime import Runtime
from fluffle.broker.runtime.timers import QueueTiming


class NodeServices(NamedTuple):
    """Services of a node below what it shares with others."""

    runtime: Runtime
    config: Config
    environment: Environment
    durability: Durability
    local: LocalQueues
    """Makes queues that are in this process."""
    dead_letter: DeadLetterFrom
    aging: QueueTiming
    settings: SettingsFrom
