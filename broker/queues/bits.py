"""Sets of messages that lie together, as numbers with a bit for each."""


def comb(count: int, step: int) -> int:
    """A number with `count` bits, `step` apart, from bit 0 on."""
    if step == 1:
        return (1 << count) - 1
    if count == 1:  # of a step that may be as long as a queue
        return 1
    return ((1 << count * step) - 1) // ((1 << step) - 1)
