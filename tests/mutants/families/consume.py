"""Mistakes in when a channel hands out what was published before."""

from tests.mutants.change import Remove
from tests.mutants.mutant import Mutant

CONSUMING = [
    Mutant("CO1", "messages are handed out too late where a consumer is cancelled", Remove()),
    Mutant("CO2", "messages are handed out too late where a prefetch limit is set", Remove()),
    Mutant("CO3", "messages are handed out too late where a message is settled", Remove()),
    Mutant(
        "CO4",
        "messages are handed out too late where a message is published, and its turn goes on",
        Remove(),
    ),
    Mutant(
        "CO5", "messages are handed out too late where the next method of a channel comes", Remove()
    ),
    Mutant("CO6", "messages are handed out too late where a channel is closed", Remove()),
    Mutant("CO7", "messages are handed out too late where a queue is deleted", Remove()),
]
