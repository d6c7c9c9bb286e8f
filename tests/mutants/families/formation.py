"""Mistakes in how clusters are founded and joined."""

from tests.mutants.change import Remove, Swap
from tests.mutants.mutant import Mutant

FORMATION = [
    Mutant(
        "FO1",
        "founds without the answers of a majority",
        Swap(
            "if A and B: ...",
            "if A:\n"
            "    alone = {self._name: self._configured[self._name]}\n"
            "    self._give(Promise(self._node.draw_mark(), alone))",
        ),
    ),
    Mutant(
        "FO2",
        "founds without asking whether there is a cluster",
        Swap(
            "if A: ...",
            "free = self.stage is Stage.FREE and self._name in self._configured\n"
            "if free and not self._is_keeping:\n"
            "    self._give(Promise(self._node.draw_mark(), self._configured))\n"
            "if True: ...",
        ),
    ),
    Mutant(
        "FO3",
        "takes a size that has grown for another cluster",
        Swap("A.B not in C", "C.keys() != A._configured.keys()"),
    ),
    Mutant("FO4", "is none of the first, and founds", Swap("A and B", "B")),
    Mutant(
        "FO5", "promises before that is on its disk", Swap("A(B, C)", "C()\nA(B, lambda: None)")
    ),
    Mutant(
        "FO6",
        "heeds votes of those who found another cluster",
        Swap("A and B and A != B", "False and A and B"),
    ),
    Mutant(
        "FO7",
        "joins a cluster that has not let it in",
        Swap("A and B is C.D and E", "B is not C.FREE and E"),
    ),
    Mutant("FO8", "asks once, and never again", Remove()),
]
