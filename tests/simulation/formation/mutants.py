"""Mistakes in how clusters are founded and joined, which seeds of `world` must find."""

from tests.simulation.mutation import Mutant

FORMATION = "broker.cluster.formation:Formation"

MUTANTS = [
    Mutant(
        "F1",
        "founds without the answers of a majority",
        f"{FORMATION}._consider",
        "if is_majority({self._name, *free}, self._configured):\n"
        "        self._give(Promise(self._node.draw_mark(), self._configured))",
        "if True:\n"
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
        "if next(iter(self._configured), None) != self._name:",
        "if self._name not in self._configured:",
    ),
    Mutant(
        "F5",
        "promises twice",
        f"{FORMATION}._on_invited",
        "is_free = self.stage is Stage.FREE or (has_begun and self._may_join(promise.mark))",
        "is_free = self.stage is not Stage.BEGUN or has_begun",
    ),
    Mutant(
        "F6",
        "promises before that is on its disk",
        f"{FORMATION}._give",
        "self._node.keep(promise, done)",
        "done()\n    self._node.keep(promise, lambda: None)",
    ),
    Mutant(
        "F7",
        "heeds votes of those who found another cluster",
        f"{FORMATION}.may_hear",
        "return kind is FrameKind.FORMATION or ours == theirs or not (ours and theirs)",
        "return True or ours == theirs or kind",
    ),
    Mutant(
        "F8",
        "joins a cluster that has not let it in",
        f"{FORMATION}._on_told",
        "if joins and standing.stage is Stage.BEGUN and self._may_join(standing.mark):",
        "if standing.stage is not Stage.FREE and self._may_join(standing.mark):",
    ),
    Mutant(
        "F9",
        "asks once, and never again",
        f"{FORMATION}.look",
        "self._ask(node)",
        "pass",
    ),
]
