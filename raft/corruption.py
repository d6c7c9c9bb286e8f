"""Corruption of a log is not truncation: handling of entries that a member cannot read again.

It is in *quarantine*, on disk too: it neither votes nor stands, and acknowledges nothing from the
damage on, until a leader has sent all of that again and it is durable.  Above the floor the log is
received anew from the damaged entry on; what is behind it on disk stays there until then.  At or
below the floor only a snapshot with its live entries mends it.  A leader resigns first.
"""

from __future__ import annotations

from fluffle.raft import leadership_transfer
from fluffle.raft.log import Quarantine
from fluffle.raft.messages import RepairRequest
from fluffle.raft.output import Role
from fluffle.raft.state import GroupState, RepairState


def resume(state: GroupState, quarantine: Quarantine) -> None:
    """Resume what is damaged at the start, or was before it and is not known to be mended.

    It may have been mended, and more acknowledged since, but for the write that says so.  That is
    on disk now, so everything there is to be durable again.  If some of it is of a later term than
    the damage, its leader had all that was worth keeping from before.
    """
    log = state.log
    # mutant: M47
    quarantine = quarantine.renewed(quarantine._replace(last=log.last_index, term=log.last_term))
    state.quarantine, state.repair = quarantine, RepairState()
    # Before anything is sent again: afterwards the damage could not be found any more.
    state.pending().quarantine = quarantine  # mutant: M31b


def on_damage(state: GroupState, index: int) -> None:
    """Put the member in quarantine: the entry at `index` cannot be read."""
    log, before = state.log, state.quarantine
    damage = Quarantine(index, log.last_index, log.last_term, needs_snapshot=index <= log.floor)
    if before is not None:
        damage = before.renewed(damage)
        is_more = not before.first <= index <= before.last or is_received_again(state, index)
        if not is_more and damage.needs_snapshot == before.needs_snapshot:
            return
    state.grant_due = False
    state.drop_receiver()  # what is on its way was not asked for from there
    state.quarantine = damage
    state.repair = state.repair or RepairState()
    state.repair.cut_at = 0
    state.pending().quarantine = state.quarantine
    state.touch()


def is_received_again(state: GroupState, index: int) -> bool:
    """True if the entry at `index` was received anew since the known damage, and is here."""
    quarantine, repair = state.quarantine, state.repair
    assert quarantine is not None
    assert repair is not None
    is_cut = repair.cut_at == quarantine.first and not quarantine.needs_snapshot
    return is_cut and index <= state.log.last_index


def flush(state: GroupState) -> None:
    """Act on a quarantine: stop leading, cut what cannot be read, see whether it is over."""
    quarantine, repair = state.quarantine, state.repair
    assert quarantine is not None
    assert repair is not None
    if state.leading is not None:
        leadership_transfer.resign(state, state.leading)
        return
    if state.role is not Role.FOLLOWER:
        state.become_follower(state.term, None)
    if state.compacting is not None:
        return  # the floor is about to rise, on disk it may have
    if quarantine.first <= state.log.floor and not quarantine.needs_snapshot:
        state.quarantine = quarantine = quarantine._replace(needs_snapshot=True)
        state.pending().quarantine = quarantine
    if not quarantine.needs_snapshot and repair.cut_at != quarantine.first:
        repair.cut_at = quarantine.first
        truncate_damage(state, quarantine.first)
    if is_repaired(state):
        end_quarantine(state)


def end_quarantine(state: GroupState) -> None:
    """End the quarantine: the member is in good order again."""
    state.quarantine = state.repair = None
    state.pending().quarantine = None
    state.pending().is_repaired = True


def truncate_damage(state: GroupState, first: int) -> None:
    """Receive everything from `first` on again, and apply from the floor on."""
    if first > state.log.last_index:
        return
    state.log.cut_damage(first)
    state.durable.truncate(first)
    state.configs.roll_back(first)
    state.truncate_due = first
    state.restore_due = True
    state.apply_read = None
    state.follow(state.leader)


def on_installed(state: GroupState) -> None:
    """Note that a snapshot has replaced, on disk, what was damaged below the floor.

    Damage that was found since it was written is not mended by it.
    """
    quarantine, repair, floor = state.quarantine, state.repair, state.log.floor
    if quarantine is None or repair is None:
        return
    if quarantine == repair.repairing:
        if quarantine.last <= floor:
            end_quarantine(state)  # what was written since is sound, and stays
            return
        first = max(quarantine.first, floor + 1)
        state.quarantine = Quarantine(first, quarantine.last, quarantine.term, needs_snapshot=False)
        state.pending().quarantine = state.quarantine
    repair.repairing = None


def is_repaired(state: GroupState) -> bool:
    """True if all that was damaged is on disk again, as the leader of this term has it.

    A leader's log may be shorter than the damaged one was, if that had no entry of its term; then
    all that it has committed, one entry of its own among it, is all there ever was to keep.  If it
    may have had one, the leader may have counted it: it adds entries until all is covered.  See
    `leader.asks_behind_the_end`.
    """
    quarantine, log = state.quarantine, state.log
    assert quarantine is not None
    if quarantine.needs_snapshot:
        return False
    whole = state.acknowledged_index
    has_own_commit = state.term > quarantine.term and log.term_at(log.commit) == state.term
    return whole >= quarantine.last or (has_own_commit and whole >= log.commit)


def request_repair(state: GroupState, repair: RepairState) -> None:
    """Ask the leader to send again what is damaged; and once more, if nothing comes from it."""
    if state.leader not in state.node.alive or repair.repairing is not None:
        return
    if state.compacting is not None:
        return  # see `flush`
    assert state.leader is not None
    now_ms = state.node.now_ms
    if repair.ask_at_ms is None or repair.ask_at_ms <= now_ms:
        request = repair_request(state, state.leader_incarnation)
        if request is not None and (repair.ask_at_ms is None or not is_being_fed(state, repair)):
            state.node.send(state.leader, request)
        repair.requested_round, repair.requested_last = state.round, state.log.last_index
        repair.ask_at_ms = now_ms + state.node.tuning.retry_ms_max
    state.set_deadline(repair.ask_at_ms)


def is_being_fed(state: GroupState, repair: RepairState) -> bool:
    """True if some of what is missing has come since the leader was asked last.

    Above the floor that is a longer log: a leader that is read sends requests without entries.
    """
    if state.needs_snapshot:
        return state.round > repair.requested_round
    return state.log.last_index != repair.requested_last


def repair_request(state: GroupState, receiver: int) -> RepairRequest | None:
    """Build the request sent instead of an answer while something has to be sent again."""
    quarantine = state.quarantine
    if quarantine is None:
        return None
    if quarantine.needs_snapshot:
        first, floor = quarantine.first, state.log.floor
    else:
        first, floor = state.log.last_index + 1, 0
    return RepairRequest(state.group, state.term, state.me.incarnation, receiver, first, floor)
