"""The HTML page of what was kept: write_html and the parts that it is put together from."""

from .page import write_html

__all__ = ["write_html"]
