"""The fixtures of tests/support/mirror_setup.py, for all tests here."""

from tests.support.mirror_setup import folder_setup, mirror_setup

__all__ = ["folder_setup", "mirror_setup"]
