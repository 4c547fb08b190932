"""Mirror a URL-keyed image cache to a bucket of your own, and train from it."""

__version__ = "0.1.0"
