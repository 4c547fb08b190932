"""The workshop's fixtures, for all tests here."""

from tests.support.mirror_setup import local, shop

__all__ = ["local", "shop"]
