"""Mistakes in how clusters are founded and joined, which seeds of `world` must find."""

from tests.simulation.mutation import Mutant

FORMATION = "broker.cluster.formation:Formation"

MUTANTS = [
    Mutant(
        "F1",
        "founds without the answers of a majority",
        f"{FORMATION}._consider",
        "if first == self._name and is_majority({self._name, *free}, self._configured):\n"
        "        self._give(Promise(self._node.draw_mark(), self._configured))",
        "if first == self._name:\n"
        "        alone = {self._name: self._configured[self._name]}\n"
        "        self._give(Promise(self._node.draw_mark(), alone))",
    ),
    Mutant(
        "F2",
        "founds without asking whether there is a cluster",
        f"{FORMATION}._consider",
        "if self.stage is not Stage.FREE or self._is_keeping or self._clusters:",
        "free = set(self._configured)\n"
        "    if self.stage is Stage.FREE and not self._is_keeping and self._name in free:\n"
        "        self._give(Promise(self._node.draw_mark(), self._configured))\n"
        "    if True:",
    ),
    Mutant(
        "F3",
        "takes a size that has grown for another cluster",
        f"{FORMATION}._on_invited",
        "if self._name not in promise.founders:",
        "if promise.founders.keys() != self._configured.keys():",
    ),
    Mutant(
        "F4",
        "is none of the first, and founds",
        f"{FORMATION}._consider",
        "if first == self._name and is_majority({self._name, *free}, self._configured):",
        "if is_majority({self._name, *free}, self._configured):",
    ),
    Mutant(
        "F5",
        "promises before that is on its disk",
        f"{FORMATION}._give",
        "self._node.keep(promise, done)",
        "done()\n    self._node.keep(promise, lambda: None)",
    ),
    Mutant(
        "F6",
        "heeds votes of those who found another cluster",
        f"{FORMATION}.may_hear",
        "return kind is FrameKind.FORMATION or ours == theirs or not (ours and theirs)",
        "return True or ours == theirs or kind",
    ),
    Mutant(
        "F7",
        "joins a cluster that has not let it in",
        f"{FORMATION}._on_told",
        "if joins and standing.stage is Stage.BEGUN and self._may_join(standing.mark):",
        "if standing.stage is not Stage.FREE and self._may_join(standing.mark):",
    ),
    Mutant(
        "F8",
        "asks once, and never again",
        f"{FORMATION}.look",
        "self._ask(node)",
        "pass",
    ),
]
