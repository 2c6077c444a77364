"""Where the templates of this package's pages are; what they extend is the simulator's."""

from jinja2 import PackageLoader

TEMPLATES = PackageLoader("codesign", "templates")
