"""Figures of the source tree: sizes, names, bundles, import cycles, and the path of a publish."""
