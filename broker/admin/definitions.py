"""definitions.*: everything that clients and operators have made, out and in.

Both go in pieces, so that ten thousand queues hold up no other request: an export is one row an
entry behind one with what stands in front, an import takes some entries of one category at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

from fluffle.broker.admin.arguments import Entries
from fluffle.broker.admin.context import NodeContext, PendingRow, Result, Row, Rows
from fluffle.broker.admin.policies import in_a_line
from fluffle.broker.base.errors import SyntaxFailure
from fluffle.broker.definitions.exporter import (
    Categories,
    cluster_entries,
    cluster_head,
    entries_of_vhost,
    vhost_head,
)
from fluffle.broker.definitions.file_format import CATEGORIES, entries_of
from fluffle.broker.definitions.importer import import_entries


def export(context: NodeContext, *, vhost: str | None = None) -> Rows:
    """Rows of the exported definitions of one virtual host, or of everything: `{"head": …,
    "categories": […]}`, then `{"category": …, "entry": …}` for each entry."""
    version = context.config.product_version
    if vhost is None:
        head, categories = cluster_head(version), cluster_entries(context.catalogue)
    else:
        host = context.vhost(vhost)
        head, categories = vhost_head(host, version), entries_of_vhost(context.catalogue, host)
    first: Row = {"head": head, "categories": list(categories)}
    return chain([first], entry_rows(categories))


def entry_rows(categories: Categories) -> Rows:
    for category, entries in categories.items():
        for entry in entries:
            yield {"category": category, "entry": entry}


def import_some(
    context: NodeContext, *, category: str, entries: Entries, home: str | None = None
) -> Result:
    """Make what the entries name; those that name no virtual host belong to `home`.

    Says what was skipped and why.  DefinitionsError; what came before it stays.
    """
    if category not in CATEGORIES:
        raise SyntaxFailure(f"there is no category '{category}'")
    if home is not None:
        context.vhost(home)
    importing = PendingRow()
    import_entries(
        category,
        [*entries_of(category, entries, home)],
        context.catalogue,
        context.metadata,
        lambda skipped: importing.answer({"skipped": [*map(in_a_line, skipped)]}),
    )
    return importing.result


READS: Mapping[str, Callable[..., Any]] = {"definitions.export": export}
CHANGES: Mapping[str, Callable[..., Any]] = {"definitions.import": import_some}
