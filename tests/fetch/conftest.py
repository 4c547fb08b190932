"""The workshop's fixtures, for all tests here."""

from tests.workshop import local, shop

__all__ = ["local", "shop"]
