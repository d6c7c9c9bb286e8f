"""Mistakes in what a publisher hears of messages that are put into very many queues."""

from tests.mutants.change import Remove
from tests.mutants.mutant import Mutant

PUTTING = [
    Mutant("PU1", "what a queue answers before the last has been asked is forgotten", Remove()),
]
