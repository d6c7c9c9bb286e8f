"""Limits and times, each with its unit in its name and its reason beside it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tuning:
    """Limits and times of all groups of a node; the nodes of a cluster need not agree."""

    ping_interval_ms: int = 250
    suspect_after_ms: int = 1_000
    """Four pings that did not come.  The floor: see `SuspicionTimeout`."""
    suspect_after_ms_max: int = 5_000
    """The cap.  For so long no node notices a machine that has just vanished, if it had been late
    with its pings again and again."""
    deaf_after_ms: int = 2_000
    """A node that pings us has not heard ours, as counted from the last that it has echoed.  Longer
    by as much as the silence is that makes no node suspected."""
    groups_max: int = 64
    """Groups that have their turn in one turn of the node, for nothing but news or because their
    time has come; less those for which something has come in.  After the loss of a node, or a
    start, it is the time of thousands, and neither pings nor clients may wait for all of them: so
    many are some milliseconds, if all of them have won an election."""
    rank_delay_ms: int = 40
    """The next in rank waits so long for the one before to win: a round trip and two commits."""
    election_timeout_ms: int = 400
    """A candidate that has not won by then tries again; a transfer that has not succeeded is off;
    a leader that has lost its quorum for so long steps down.  A follower does not wait for this:
    once its leader's node is suspected (`suspect_after_ms`), it waits for its rank."""
    retry_ms: int = 200
    """A follower that owes an answer is asked again after this; grows to `retry_ms_max`."""
    retry_ms_max: int = 2_000

    commit_delay_ms: int = 10
    """If nothing follows, followers hear of a commit after this, or twice as long.  Mostly the next
    append tells."""

    append_bytes_max: int = 1 << 20
    """Bytes of entries in one message; one entry that is larger goes alone."""
    window_bytes: int = 8 << 20
    """Appends under way to one follower: a tenth of a second of a fast network."""
    window_messages: int = 128
    uncommitted_bytes_max: int = 64 << 20
    """Proposals wait for their commit in memory; beyond this they are refused."""
    cached_bytes: int = 1 << 20
    """Applied entries that a follower still needs stay in memory up to this; then they are read."""
    apply_bytes_max: int = 4 << 20
    """Bytes of entries handed over to be applied at once, so that a turn ends."""
    apply_bytes_min: int = 64 << 10
    """The same for a group of which each entry has consequences: some hundred definitions."""

    promotion_lag_entries: int = 128
    """A learner that lacks more does not become a voter: it would hold commits up.  Nor is a voter
    that does a transfer target: during a transfer to it nothing is taken."""

    snapshot_chunk_bytes: int = 256 << 10
    """Pings must not wait behind more than this."""
    snapshot_window: int = 4
    """Chunks under way to one follower."""
    snapshot_hold_ms: int = 30_000
    """While a snapshot's state is being sent no newer one takes its place; at most so long."""
