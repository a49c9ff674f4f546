"""The version, alone: the build reads it without importing azpool."""

__version__ = "0.1.0"
