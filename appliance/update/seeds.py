"""Files here that may hold parts of a payload, so that only the rest is fetched."""

from __future__ import annotations

from appliance.errors import ApplianceError
from appliance.host import files, trees
from appliance.host.layout import Layout
from appliance.update.os_slots import seeds_of_os
from appliance.update.product import Product


def seeds_of(product: Product, layout: Layout) -> list[str]:
    """The versions in the slots. A bundle's tree is made the file again that it was, for as long as it is needed."""
    if product.is_bundle:
        tree, seed = f"{product.slots(layout)}/current", f"{product.directory(layout)}/seed"
        if not files.is_directory(tree):
            return []
        try:
            trees.write_tree(tree, seed)
        except ApplianceError:  # no room: then all is fetched
            files.remove(seed)
            return []
        return [seed]
    if product.kind == "os":
        return seeds_of_os()
    return [f"{product.slots(layout)}/{slot}/appliance" for slot in ("a", "b")]
