"""News that are told to some at a time."""

from fluffle.raft.pending_news import PendingNews


def test_each_hears_everything_once_and_in_order() -> None:
    untold: PendingNews[str, int] = PendingNews()
    untold.add("abc", 1)
    untold.add("bd", 2)
    assert len(untold.first(9)) == 4
    assert untold.first(2) == ["a", "b"]
    assert untold.take("b") == (1, 2)
    assert untold.take("b") == ()
    untold.add("b", 3)
    assert untold.first(9) == ["a", "c", "d", "b"]
    assert [untold.take(each) for each in "acdb"] == [(1,), (1,), (2,), (3,)]
    assert not untold
