"""The version, in one place: pyproject.toml and CMakeLists.txt read it from here."""

__version__ = "0.2.0"
