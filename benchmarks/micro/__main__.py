"""`python -m benchmarks.micro`: the hot functions, by body size and by length of runs.

The figure is the best of several rounds: what the function costs when nothing disturbs it.
"""

from collections.abc import Callable, Mapping, Sequence

from benchmarks.micro import edge, hot, mqtt, queue, replicated, streams
from benchmarks.report import markdown_table


def table(benches: Mapping[str, Callable[[int], float]], sizes: Sequence[int], unit: str) -> str:
    head = ["ns per message", *(f"{size:,} {unit}" for size in sizes)]
    rows = [
        [name, *(f"{measure(size):.0f}" for size in sizes)] for name, measure in benches.items()
    ]
    return markdown_table(head, rows)


def main() -> None:
    print(table(hot.BENCHES, hot.BODY_BYTES, "B"))
    print(table(mqtt.BENCHES, hot.BODY_BYTES, "B"))
    print(table(edge.BENCHES, edge.RUN_MESSAGES, "a run"))
    print(table(queue.BENCHES, queue.RUN_MESSAGES, "a run"))
    print(table(replicated.BENCHES, replicated.BATCH_MESSAGES, "an entry"))
    print(table(streams.BENCHES, streams.BATCH_MESSAGES, "a turn"))


if __name__ == "__main__":
    main()
