"""Files here that may hold parts of a payload, so that only the rest is fetched."""

from __future__ import annotations

from appliance.host.layout import Layout
from appliance.update.product import Product


def seeds_of(product: Product, layout: Layout) -> list[str]:
    """The versions in the slots."""
    return [f"{product.slots(layout)}/{slot}/appliance" for slot in ("a", "b")]
