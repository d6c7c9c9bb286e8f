"""Errors in bytes that a member of a quorum queue was given."""


class InvalidEntry(ValueError):
    """An entry or a snapshot that cannot be taken for true here; says why.

    Its kind or version is not known, it is damaged, or a fact in it contradicts what all facts
    before it amount to.  Whoever is given such a thing must not go on as if it had not been: the
    member is quarantined, and its image thrown away, for it may have been changed in part.

    It is a `ValueError` because the host of a group takes that, from its image, for damage.
    """
