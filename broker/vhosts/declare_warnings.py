"""Declare warnings: logged once an argument without effect, for the first queue that has it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from fluffle.broker.base.logs import event
from fluffle.broker.queues.arguments import QueueSpec, features_not_in_effect
from fluffle.broker.queues.settings import (
    NO_POLICY,
    EffectivePolicy,
    QueueSettings,
    SettingsFrom,
    unusable_arguments,
    why_at_most_once,
)

logger = logging.getLogger(__name__)


EffectivePolicyFrom: TypeAlias = Callable[[str, QueueSpec], EffectivePolicy]


def no_policies(_vhost: str, _spec: QueueSpec) -> EffectivePolicy:
    """Return no policy, where there are none."""
    return NO_POLICY


class DeclareWarnings:
    """Warnings for the arguments of new queues, and the settings of all queues."""

    __slots__ = ("_definition", "_noticed", "_settings")

    def __init__(
        self, settings: SettingsFrom, definition: EffectivePolicyFrom = no_policies
    ) -> None:
        """`definition`: what the policies of a queue say, which `settings` heed."""
        self._settings = settings
        self._definition = definition
        self._noticed: set[str] = set()

    def settings_of(self, vhost: str, spec: QueueSpec) -> QueueSettings:
        """Return the settings of a queue.  If they are less safe than its definition suggests, that
        is logged, once for each queue."""
        settings = self._settings(vhost, spec)
        reason = why_at_most_once(spec, self._definition(vhost, spec), settings)
        if reason and self._is_news(f"{vhost} {spec.name} {reason}"):
            event(
                logger, logging.WARNING, "dead_letters_need_not_arrive",
                reason=reason, queue=spec.name, vhost=vhost,
            )  # fmt: skip
        return settings

    def new_queue(self, spec: QueueSpec, vhost: str) -> None:
        for feature in features_not_in_effect(spec):
            if self._is_news(feature):
                event(
                    logger, logging.WARNING, "not_yet_in_effect",
                    feature=feature, queue=spec.name, vhost=vhost,
                )  # fmt: skip
        for argument, reason in unusable_arguments(spec, self._settings(vhost, spec)).items():
            if self._is_news(f"{argument} {reason}"):
                event(
                    logger, logging.WARNING, "argument_ignored",
                    argument=argument, reason=reason, queue=spec.name, vhost=vhost,
                )  # fmt: skip

    def _is_news(self, what: str) -> bool:
        is_news = what not in self._noticed
        self._noticed.add(what)
        return is_news
