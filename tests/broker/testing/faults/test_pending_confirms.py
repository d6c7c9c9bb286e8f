"""However a client is told of confirms, it comes to know the same."""

from __future__ import annotations

from random import Random

from fluffle.broker.testing.faults.frames import ACK, Frame
from fluffle.broker.testing.faults.pending_confirms import PendingConfirms
from tests.suite.seeds import seeds


class Publisher:
    """Believes what it is told."""

    def __init__(self) -> None:
        self.known: dict[int, bool] = {}
        self.open: set[int] = set()

    def hear(self, frame: Frame) -> None:
        numbers = (
            [each for each in self.open if each <= frame.tag] if frame.multiple else [frame.tag]
        )
        for number in numbers:
            self.open.remove(number)
            self.known[number] = frame.method == ACK


@seeds(50)
def test_a_publisher_comes_to_know_what_became_of_each(seed: int) -> None:
    chance = Random(seed)
    confirms, publisher, fates = PendingConfirms(1), Publisher(), dict[int, bool]()
    published = 0
    unanswered: list[int] = []
    for _ in range(30):
        count = chance.randrange(4)
        unanswered += range(published + 1, published + count + 1)
        publisher.open.update(range(published + 1, published + count + 1))
        published += count
        if unanswered and chance.random() < 0.7:
            is_ack, multiple = chance.random() < 0.8, chance.random() < 0.5
            tag = chance.choice(unanswered)
            answered = [each for each in unanswered if each <= tag] if multiple else [tag]
            confirms.add(tag, multiple=multiple, is_ack=is_ack)
            fates |= dict.fromkeys(answered, is_ack)
            unanswered = [each for each in unanswered if each not in answered]
        if chance.random() < 0.5:
            for frame in confirms.told(chance):
                publisher.hear(frame)
    for frame in confirms.told(chance):
        publisher.hear(frame)
    assert publisher.known == fates, f"seed {seed}"


def test_some_are_told_as_one_and_some_out_of_order() -> None:
    shapes = set()
    for seed in range(20):
        confirms = PendingConfirms(1)
        for number in (1, 2, 3):
            confirms.add(number, multiple=False, is_ack=True)
        told = [(frame.tag, frame.multiple) for frame in confirms.told(Random(seed))]
        shapes.add(tuple(told))
    assert ((3, True),) in shapes
    assert any(shape[0] == (3, False) for shape in shapes)
