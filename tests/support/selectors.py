"""JMS selectors that chance draws, as terms that mean something, and as the text that is bound."""

from random import Random

from fluffle.broker.routing.jms_topic import Term

STRINGS, NUMBERS, BOOLEANS = ("s", "t", "u"), ("n", "f", "m"), ("b", "c")
"""Headers by what they hold, where they are there."""
WORDS = ("", "a", "b", "ab", "ba", "a_b", "a%b", "aba", "a\nb", 'a"\\', "é")
COMPARISONS = ("=", "<>", "<", ">", "<=", ">=")


def selector(term: Term) -> str:
    """Selector as the JMS client writes it."""
    return f"{written(term)}."


def written(term: Term) -> str:
    match term:
        case str():
            return f"'{term}'"
        case bytes():
            escaped = term.decode().replace("\\", "\\\\").replace('"', '\\"')
            return f'<<"{escaped}">>'
        case tuple():
            return "{" + ",".join(map(written, term)) + "}"
        case list():
            return "[" + ",".join(map(written, term)) + "]"
        case _:
            return repr(term)


class Drawn:
    """Random terms, without those at which RabbitMQ's plugin fails."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def headers(self) -> dict[str, str | int | float | bool]:
        chance = self._chance
        drawn: dict[str, str | int | float | bool] = {}
        drawn |= {name: chance.choice(WORDS) for name in STRINGS}
        drawn |= {name: self._number() for name in NUMBERS}
        drawn |= {name: chance.random() < 0.5 for name in BOOLEANS}
        return {name: value for name, value in drawn.items() if chance.random() < 0.7}

    def condition(self, depth: int) -> Term:
        """Something that is true, false or unknown."""
        chance = self._chance
        if depth and chance.random() < 0.5:
            pair = self.condition(depth - 1), self.condition(depth - 1)
            return chance.choice((("not", pair[0]), ("and", *pair), ("or", *pair)))
        kinds = (self._of_numbers, self._of_strings, self._of_a_pattern, self._of_a_boolean)
        return chance.choice(kinds)(depth)

    def _of_numbers(self, depth: int) -> Term:
        one, low, high = (self._amount(depth) for _ in range(3))
        choices: tuple[Term, ...] = (
            (self._chance.choice(COMPARISONS), one, low),
            ("between", one, low, high),
            ("not_between", one, low, high),
            ("between", one, ("range", low, high)),
        )
        return self._chance.choice(choices)

    def _of_strings(self, _depth: int) -> Term:
        chance = self._chance
        ident = self._ident(STRINGS)
        items: list[Term] = [self._word() for _ in range(chance.randint(0, 3))]
        choices: tuple[Term, ...] = (
            (chance.choice(COMPARISONS), ident, self._word()),
            (chance.choice(("in", "not_in")), ident, items),
            (chance.choice(("is_null", "not_null")), self._ident(STRINGS + NUMBERS + BOOLEANS)),
        )
        return chance.choice(choices)

    def _of_a_pattern(self, _depth: int) -> Term:
        chance = self._chance
        pattern = "".join(chance.choice("ab%_!\n") for _ in range(chance.randint(0, 5)))
        escape: Term = chance.choice(("no_escape", b"!", b"a", b"_"))
        return chance.choice(("like", "not_like")), self._ident(STRINGS), pattern.encode(), escape

    def _of_a_boolean(self, _depth: int) -> Term:
        return self._chance.choice((self._ident(BOOLEANS), "true", "false"))

    def _amount(self, depth: int) -> Term:
        chance = self._chance
        if not depth or chance.random() < 0.5:
            return chance.choice((self._ident(NUMBERS), self._number()))
        one, other = self._amount(depth - 1), self._amount(depth - 1)
        return chance.choice(
            (
                (chance.choice("+-*"), one, other),
                (chance.choice("+-"), one),
                ("/", one, chance.choice((-2, 4, 0.5))),
            )
        )

    def _number(self) -> float:
        numbers: tuple[float, ...] = (*range(-3, 4), -1.5, 0.5, 2.0)
        return self._chance.choice(numbers)

    def _word(self) -> bytes:
        return self._chance.choice(WORDS).encode()

    def _ident(self, names: tuple[str, ...]) -> Term:
        return "ident", self._chance.choice(names).encode()
