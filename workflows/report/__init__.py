"""A finished run as it is shown: figures, tables and the page."""
