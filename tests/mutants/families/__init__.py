"""Lists of mutants, by what they are mistakes in."""
