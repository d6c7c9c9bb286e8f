"""Elections: what runs of the simulator and readers found."""

from collections import Counter
from functools import partial

from fluffle.raft.config import Configuration, Member, Remove
from fluffle.raft.messages import Ping, PreVoteRequest, TimeoutNow, VoteRequest, VoteResponse
from fluffle.raft.output import Output, Readable, Role
from tests.raft.cluster import GROUP, Cluster, Host
from tests.raft.single import Single


def test_whoever_stands_has_forgotten_the_vote_it_was_about_to_send() -> None:
    """Its own vote becomes durable, and would be taken for the one that was waited for."""
    cluster = Cluster()
    cluster.create()
    b = cluster["b"]
    while b.sync():
        pass
    b.do(lambda: b.raft.receive("a", [VoteRequest(GROUP, 5, 1, 1, 0, 0, False)]))
    b.do(lambda: b.raft.receive("c", [TimeoutNow(GROUP, 5, 1, 1)]))
    assert b.status().role is Role.CANDIDATE
    while b.sync():
        pass
    assert [sent for sent in cluster.network if sent[0] == sent[1]] == []


def test_whoever_lost_often_stands_soon_when_it_has_what_another_candidate_lacks() -> None:
    """Its own next try may be two seconds away, and nobody else can win meanwhile."""
    cluster = Cluster()
    cluster.create()
    cluster.elect("a")
    cluster.propose("one")
    cluster.advance(500)
    c, now_ms = cluster["c"], cluster.now_ms
    state = c.raft._groups[GROUP]
    state.tries = 8
    c.do(lambda: c.raft.link_down("a"))
    soon_ms = now_ms + cluster.tuning.rank_delay_ms
    state.set_deadline(now_ms + cluster.tuning.retry_ms_max)
    same_log = PreVoteRequest(GROUP, state.term + 1, 1, 1, state.log.last_index, state.term)
    c.do(lambda: c.raft.receive("b", [same_log]))
    assert state.deadline_ms is not None
    assert state.deadline_ms > soon_ms
    shorter = PreVoteRequest(GROUP, state.term + 1, 1, 1, state.log.last_index - 1, state.term)
    c.do(lambda: c.raft.receive("b", [shorter]))
    assert state.deadline_ms == soon_ms


def test_whoever_wins_when_its_majority_is_lost_already_steps_down() -> None:
    """No verdict follows that would make it look."""
    node = Single()
    node.stand()
    node.raft.link_down("b")
    node.raft.link_down("c")
    node.receive("b", VoteResponse(GROUP, node.status.term, 1, 1, True))
    roles = [node.status.role]
    node.advance(node.state.node.tuning.election_timeout_ms)
    roles.append(node.status.role)
    assert roles == [Role.LEADER, Role.FOLLOWER]


def founded(names: str = "abc", first: str = "a") -> Cluster:
    """These have heard of the group, and all founders have agreed on who leads first."""
    cluster = Cluster()
    hear_of_it(cluster, names, first)
    return cluster


def hear_of_it(cluster: Cluster, names: str, first: str = "a") -> None:
    config = Configuration.initial("abc")
    for name in names:
        host = cluster[name]
        host.do(partial(host.raft.create, GROUP, 1, config, first))


def test_founders_that_agree_on_the_first_leader_say_nothing_and_write_once() -> None:
    cluster, written, sent = Cluster(), Counter[str](), list[object]()
    cluster.advance(300)

    def note(host: Host, output: Output) -> None:
        written[host.name] += output.persist is not None
        sent.extend(each for messages in output.messages.values() for each in messages)

    cluster.on_output = note
    hear_of_it(cluster, "cba")
    assert cluster["a"].status().role is Role.CANDIDATE
    cluster.advance(200)
    assert {type(each) for each in sent} == {Ping}
    assert written == dict.fromkeys("abc", 1)
    assert [cluster[name].status().leader for name in "abc"] == ["a"] * 3
    assert cluster["a"].status().role is Role.LEADER
    cluster.propose("one")
    cluster.advance(100)
    assert [cluster.data(name) for name in "abc"] == [["one"]] * 3
    assert {cluster[name].status().term for name in "abc"} == {1}


def test_the_first_leader_answers_reads_and_hands_over_before_anything_was_proposed() -> None:
    cluster, readable = founded(), list[Readable]()
    cluster.settle()
    cluster.on_output = lambda _host, output: readable.extend(output.readable)
    a = cluster["a"]
    a.do(partial(a.group().read_index, 5))
    cluster.settle()
    assert readable == [Readable(GROUP, 5, 0)]
    assert sorted(a.group().transfer_targets) == ["b", "c"]
    assert cluster.elect("c").status().term == 2


def test_the_first_leader_says_nothing_before_its_vote_is_on_disk() -> None:
    """Else it could lead the same term again, with another log, after a crash."""
    cluster = founded()
    a = cluster["a"]
    assert a.status().role is Role.CANDIDATE
    a.crash()
    a.start()
    cluster.link_all()
    hear_of_it(cluster, "a")
    cluster.settle()
    assert cluster.led() is a
    assert a.status().term == 1
    cluster.propose("one")
    cluster.settle()
    a.crash()
    a.start()
    assert a.status().role is Role.FOLLOWER
    assert a.status().vote == Member("a", 1)
    cluster.link_all()
    cluster.advance(2_000)
    assert cluster.led().status().term > 1
    assert cluster.data(cluster.led().name) == ["one"]


def test_a_founder_that_hears_of_the_group_late_gives_its_vote_to_nobody_else() -> None:
    cluster = founded("a")
    cluster.settle()
    hear_of_it(cluster, "c")
    c = cluster["c"]
    c.do(lambda: c.raft.receive("b", [VoteRequest(GROUP, 1, 1, 1, 0, 0, False)]))
    cluster.settle()
    assert c.status().vote == Member("a", 1)
    cluster.propose("one")
    cluster.advance(500)
    assert cluster.data("c") == ["one"]
    hear_of_it(cluster, "b")
    cluster.advance(2_000)
    assert cluster.data("b") == ["one"]


def test_others_are_elected_if_the_first_leader_is_away() -> None:
    cluster = Cluster()
    for name in "bc":
        cluster[name].do(partial(cluster[name].raft.link_down, "a"))
    hear_of_it(cluster, "bc")
    cluster.advance(2_000)
    assert cluster.led().name in "bc"
    assert cluster.led().status().term == 2


def test_others_are_elected_if_the_first_leader_has_begun_a_new_life_and_heard_of_nothing() -> None:
    cluster = founded("bc")
    cluster["a"].crash()
    cluster["a"].start()
    cluster.link_all()
    cluster.advance(2_000)
    assert cluster.led().name in "bc"


def test_a_founder_in_a_new_life_hears_who_leads_before_it_stands() -> None:
    """Nothing was ever proposed, so that there is no entry and no commit for it to lack."""
    cluster, stood = founded(), list[object]()
    cluster.advance(300)

    def note(_host: Host, output: Output) -> None:
        sent = (each for messages in output.messages.values() for each in messages)
        stood.extend(each for each in sent if isinstance(each, PreVoteRequest))

    cluster.on_output = note
    b = cluster["b"]
    b.crash()
    b.start(are_asleep=True)
    cluster.link_all()
    cluster.advance(300)
    b.do(b.raft.scheduler.wake)
    cluster.advance(2_000)
    assert b.status().leader == "a"
    assert stood == []
    cluster.on_output = lambda _host, output: stood.append(output.messages)
    cluster["a"].do()
    assert stood == [{}]


def test_nobody_clings_to_a_leader_whose_node_has_the_group_no_more() -> None:
    """Its node is alive; the others do not hear that it has left."""
    cluster = Cluster()
    cluster.create()
    a = cluster.elect("a")
    a.do(partial(a.group().change, Remove("a")))
    last = a.status().last
    for _ in range(100):
        if a.status().commit == last:
            break
        if cluster.network:
            cluster.deliver()
        else:
            assert any(host.sync() for host in cluster.up)
    assert a.status().commit == last
    a.do(partial(a.raft.delete, GROUP))
    cluster.network.clear()
    b = cluster["b"]
    b.do(b.group().campaign)
    cluster.advance(5_000)
    assert cluster.led().name in "bc"


def test_a_leader_that_has_left_hears_that_others_lead() -> None:
    """A former leader asks for its successor in a term that no message tells it."""
    cluster = Cluster()
    cluster.create()
    a = cluster.elect("a")
    cluster.partition("a", "bc")
    cluster.advance(300)
    b = cluster["b"]
    b.do(partial(b.raft.receive, "a", [TimeoutNow(GROUP, a.status().term, 1, 1)]))
    cluster.settle()
    assert b.status().term > a.status().term
    cluster.heal()
    b.do(partial(b.raft.receive, "a", [TimeoutNow(GROUP, a.status().term, 1, 1)]))
    cluster.deliver(len(cluster.network) - 1)
    assert a.status().term == b.status().term
