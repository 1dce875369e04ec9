"""Which version this is: what `setup.py` has, too."""

VERSION = "0.1.0"
