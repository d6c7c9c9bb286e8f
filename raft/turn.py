"""End of a turn, for one group: everything that came in becomes what goes out."""

from __future__ import annotations

from fluffle.raft import commit_index, corruption, election, follower, leader, snapshot_receiver
from fluffle.raft.log_store import Write
from fluffle.raft.output import Apply, ReadEntries, RoleChange
from fluffle.raft.state import GroupState


def flush(state: GroupState) -> None:
    """Decide what to send; what is to be written follows in `write`."""
    if state.quarantine is not None:
        corruption.flush(state)
    election.flush(state)
    if state.leading is not None:
        leader.flush(state)
    else:
        follower.flush(state)
        if state.receiver is not None:
            snapshot_receiver.flush(state, state.receiver)
        election.update_deadline(state)
        if state.repair is not None:
            corruption.request_repair(state, state.repair)
    restore_and_apply(state)
    evict(state)
    report_role(state)


def restore_and_apply(state: GroupState) -> None:
    """Hand out what may be applied, one page at a time."""
    if state.restore_due:
        state.restore_if_due()
        if state.restore_due:
            return
    log = state.log
    first, stop = log.handed + 1, applicable_index(state) + 1
    if first >= stop or log.applied < log.handed or state.apply_read is not None:
        return
    bytes_max = state.apply_bytes_max
    if log.is_in_memory(first):
        entries = log.slice(first, stop, bytes_max)
        log.handed = entries[-1].index
        state.node.output.applies.append(Apply(state.group, entries))
    else:
        state.apply_read = state.node.take_number()
        stop = min(stop, log.tail_first)
        read = ReadEntries(state.group, first, stop, bytes_max, state.apply_read)
        state.node.output.reads.append(read)


def applicable_index(state: GroupState) -> int:
    """Return up to where entries are committed, and durable here: what is applied is never lost
    by a restart."""
    return min(state.log.commit, state.sound_index)  # mutant: M27


def waits_for_applied(state: GroupState) -> bool:
    """Tell whether anything can be done now that what was handed out is applied."""
    if state.restore_due or applicable_index(state) > state.log.handed:
        return True
    return state.leading is not None and leader.waits_for_applied(state, state.leading)


def evict(state: GroupState) -> None:
    """Evict entries that nothing will ask for; those a follower needs soon are kept a while."""
    log = state.log
    through = min(log.applied, state.durable.index)
    if through < log.tail_first:
        return
    if state.leading is not None and log.tail_bytes <= state.node.tuning.cached_bytes:
        for peer in state.leading.peers.values():
            if peer.is_alive and peer.match < through:
                through = peer.match
    log.evict(through)


def report_role(state: GroupState) -> None:
    if state.campaign is not None and state.campaign.is_first_term:
        return  # it leads as soon as that is on disk
    role_change = (state.role, state.term, state.leader)
    if role_change != state.reported_role:
        state.reported_role = role_change
        state.node.output.roles.append(RoleChange(state.group, *role_change))


def write(state: GroupState, token: int) -> Write | None:
    """Return what the group has to write under this token, if anything."""
    entries = state.log.submit() if state.log.submitted < state.log.last_index else []
    is_voting = state.hard_state != state.submitted_hard_state
    if state.write is None and not entries and not is_voting:
        return None
    found, state.write = state.write or Write(state.group), None
    found.entries = entries
    if entries and state.truncate_due is not None:
        found.truncate_from = min(state.truncate_due, found.truncate_from or state.truncate_due)
        state.truncate_due = None
    if is_voting:
        found.hard_state = state.submitted_hard_state = state.hard_state
    state.durable.submit(token, state.log.submitted, state.hard_state)
    if found.snapshot is not None:
        state.compacting = (token, found.snapshot.meta)
    if found.install is not None and state.installing is not None:
        state.installing = token
    if state.receiver is not None:
        snapshot_receiver.on_written(state.receiver, token)
    return found


def on_durable(state: GroupState, token: int) -> None:
    """Note that the group's oldest write under way is on disk.

    A leader has its turn only if something follows from it: mostly a follower has to say so, too.
    """
    state.durable.finish(token)
    if state.leading is not None:
        commit_index.wake_if_committable(state, state.leading)
    if state.installing == token:
        state.installing = None
        corruption.on_installed(state)
        state.touch()
    if state.compacting is not None and state.compacting[0] == token:
        meta, state.compacting = state.compacting[1], None
        if meta.index > state.log.floor:
            state.log.compact(meta)
            state.configs.prune(meta.index)
        state.touch()
    if state.receiver is not None:
        snapshot_receiver.on_durable(state, state.receiver, token)
    if state.leading is None or applicable_index(state) > state.log.handed:
        state.touch()
