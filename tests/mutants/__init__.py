"""Known mistakes, one at a time: a suite that does not see one is not finished."""
