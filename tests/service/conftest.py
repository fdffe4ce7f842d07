"""What the tests of the admin API share: see test_admin.py."""

from test_admin import control, serve

__all__ = ["control", "serve"]
