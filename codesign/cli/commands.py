"""The commands: each a file in this folder, registered here by a line.

It has `command`, the function, and `EPILOG`; `SETTINGS` for Typer where there are any. Nothing is
imported before the command is asked for, and nothing is here.
"""

# Command -> whether it runs on Ray, and so as the child of a process that outlives Ray.
COMMANDS = {
    "simulate": False,
    "sweep": False,
    "baselines": False,
    "compare": False,
    "nested": True,
    "similarity": False,
    "train": False,
    "demo": True,
    "capture": False,
    "search": True,
    "report": False,
    "measure": False,
    "presets": False,
    "techniques": False,
}
