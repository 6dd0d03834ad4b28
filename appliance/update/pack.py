"""Who a built binary is; it is read in ``payload``."""

from appliance.payload import FOOTER_SIZE, Footer, parse_footer

__all__ = ["FOOTER_SIZE", "Footer", "parse_footer"]
