"""Reads the hardware description of SCALE-Sim, the ``.cfg`` file of its version 3."""

from __future__ import annotations

import configparser
import math
import os
import re

from accelerators.accelerator import MAX_NAME_CHARACTERS, Accelerator
from accelerators.reading import refuse_endless
from accelerators.rules import (
    ConfigError,
    choose,
    integer,
    nearest,
    quoted,
    real,
    refuse,
    show,
    text,
)
from accelerators.units import Dram, SramBuffer, SystolicArray
from accelerators.units.buffer import MAX_BUFFER_BYTES

DATAFLOWS = {"ws": "weight_stationary", "os": "output_stationary", "is": "input_stationary"}
"""SCALE-Sim's name of a dataflow to this project's."""

_UNSUPPORTED = (
    ("sparsity", "SparsitySupport"),
    ("sparsity", "OptimizedMapping"),
    ("layout", "IfmapCustomLayout"),
    ("layout", "FilterCustomLayout"),
    ("run_presets", "UseRamulatorTrace"),
)
# What is read, by its section, as an example of it that repairs a file without it. Beside these,
# SCALE-Sim has the sections and keys below: none of them is another one misspelled.
_READ = {
    "general": {"run_name": "my_design"},
    "architecture_presets": {
        "ArrayHeight": "32",
        "ArrayWidth": "32",
        "IfmapSramSzkB": "512",
        "FilterSramSzkB": "512",
        "OfmapSramSzkB": "256",
        "Dataflow": "ws",
        "Bandwidth": "10",
    },
    "run_presets": {"InterfaceBandwidth": "CALC or USER"},
}
_KNOWN_SECTIONS = {*_READ, "layout", "sparsity", "network_presets"}
_KNOWN_KEYS = {
    *("run_name", "arrayheight", "arraywidth", "dataflow", "bandwidth", "memorybanks"),
    *("ifmapsramszkb", "filtersramszkb", "ofmapsramszkb"),
    *("ifmapoffset", "filteroffset", "ofmapoffset", "readrequestbuffer", "writerequestbuffer"),
    *("interfacebandwidth", "useramulatortrace"),
}
_ON, _OFF = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_KIB = 1024
_OPERAND_BITS, _ACCUMULATOR_BITS = 8, 32
_WIDEST_PORT_BYTES = 512
# What ``CALC`` stands for: the most that a ``Dram`` may have.
_UNLIMITED_BYTES_PER_CYCLE = 65536
_LARGEST_FILE_BYTES = 2**20
_LONGEST_REASON = 160
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_DIGITS = re.compile(r"[+-]?[0-9]+")


def read_scale_sim_config(path: str | os.PathLike[str], *, clock_hz: float = 1e9) -> Accelerator:
    """The dense design that a SCALE-Sim configuration describes.

    Read are ``run_name``; ``ArrayHeight``, ``ArrayWidth``, ``IfmapSramSzkB``, ``FilterSramSzkB``,
    ``OfmapSramSzkB`` (KiB) and ``Dataflow``; and ``InterfaceBandwidth``: with ``USER``, the DRAM
    has the one number of ``Bandwidth``, in words, here bytes, per cycle; with ``CALC``, for which
    SCALE-Sim ignores ``Bandwidth`` and takes what the array asks for, it has 65536. What would
    change results and is not modelled here (sparsity, custom layouts, Ramulator) must be off. Other
    keys are ignored.

    SCALE-Sim says nothing of the rest, which is chosen here: operands of 8 bits, partial sums of
    32, the default cost table, folds one after the other (as SCALE-Sim counts them), and buffers
    whose ports never limit the array, as SCALE-Sim has none: inputs and weights move as many
    operands a cycle as the array's longer side has units, outputs twice as many partial sums
    (read and written back). Area and energy follow from these choices, not from the file.

    With ``USER``, SCALE-Sim gives inputs, weights and outputs an interface each (and takes the
    bandwidth of the first two from ``[layout]``); here they share one DRAM. Compare compute cycles,
    not stalls.

    Args:
        path: the ``.cfg`` file, at most 1 MiB.
        clock_hz: SCALE-Sim counts cycles alone; 1 to 1e12.

    Raises:
        ConfigError: a file that can't be read, and every key that is missing or breaks a rule.
    """
    config = _Config(path)
    name = config.name("general", "run_name")
    rows = config.whole("architecture_presets", "ArrayHeight", 4096)
    columns = config.whole("architecture_presets", "ArrayWidth", 4096)
    capacities = {
        key: _KIB * config.whole("architecture_presets", key, MAX_BUFFER_BYTES // _KIB)
        for key in ("IfmapSramSzkB", "FilterSramSzkB", "OfmapSramSzkB")
    }
    dataflow = config.choice("architecture_presets", "Dataflow", tuple(DATAFLOWS))
    mode = config.choice("run_presets", "InterfaceBandwidth", ("USER", "CALC"))
    bandwidth: float = _UNLIMITED_BYTES_PER_CYCLE
    if mode == "USER":
        bandwidth = config.number("architecture_presets", "Bandwidth")
    for section, key in _UNSUPPORTED:
        config.must_be_off(section, key)
    refuse(config.problems)

    operands = _ports(max(rows, columns) * _OPERAND_BITS // 8)
    sums = _ports(max(rows, columns) * _ACCUMULATOR_BITS // 8, accesses=2)  # read, written back
    ports = {"IfmapSramSzkB": operands, "FilterSramSzkB": operands, "OfmapSramSzkB": sums}
    for key, (count, port_bytes) in ports.items():
        least = count * port_bytes
        if capacities[key] < least:
            config.problems.append(
                f"{config.where('architecture_presets', key)} must hold what the {rows}x{columns} "
                f"array moves in a cycle, {least} bytes, got {capacities[key] // _KIB} KiB; "
                f"use {-(-least // _KIB)} or more"
            )
    refuse(config.problems)
    ifmap, filters, ofmap = (
        SramBuffer(capacity_bytes=capacities[key], width_bits=8 * port_bytes, ports=count)
        for key, (count, port_bytes) in ports.items()
    )
    return Accelerator(
        name=name,
        array=SystolicArray(
            rows=rows, columns=columns, dataflow=DATAFLOWS[dataflow], fold_timing="sequential"
        ),
        activation_buffer=ifmap,
        weight_buffer=filters,
        output_buffer=ofmap,
        dram=Dram(bandwidth_bytes_per_cycle=bandwidth),
        clock_hz=clock_hz,
        operand_bits=_OPERAND_BITS,
        accumulator_bits=_ACCUMULATOR_BITS,
    )


def _ports(access_bytes: int, accesses: int = 1) -> tuple[int, int]:
    """The fewest ports, and bytes of each, for so many accesses of so many bytes a cycle."""
    count = -(-access_bytes // _WIDEST_PORT_BYTES)
    return accesses * count, -(-access_bytes // count)


class _Config:
    """A parsed file and what is wrong with it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.problems: list[str] = []
        self.label = _label(path)
        self._missing: set[str] = set()
        self._parser = configparser.ConfigParser(interpolation=None)
        content = _read(path, self.label)
        try:
            self._parser.read_string(content, source="the file")
        except configparser.Error as error:
            reason = " ".join(str(error).split())
            if len(reason) > _LONGEST_REASON:
                reason = reason[: _LONGEST_REASON - 3] + "..."
            raise ConfigError(
                f"{self.label} must be [section] lines and key: value lines, each section once and "
                f"each key once in it, got: {reason}; mend that line"
            ) from error

    def where(self, section: str, key: str) -> str:
        """How messages call a key."""
        return f"{self.label} [{section}] {key}"

    def given(self, section: str, key: str) -> str | None:
        """The text of a key; None, and a violation, where it is missing."""
        if not self._parser.has_section(section):
            if section not in self._missing:
                self._missing.add(section)
                near = self._misspelled(section)
                keys = ", ".join(f"{key}: {text}" for key, text in _READ[section].items())
                fix = f"rename [{near}]" if near else f"add [{section}] ({keys})"
                self.problems.append(
                    f"{self.label} must have a section [{section}], got none; {fix}"
                )
            return None
        found = self._parser.get(section, key, fallback=None)
        if found is None:
            fix = self._repair(section, key)
            self.problems.append(f"{self.where(section, key)} must be given, got nothing; {fix}")
        return found

    def _misspelled(self, section: str) -> str | None:
        """The section that may be meant, which is none of another name that is read."""
        unknown = {
            name.strip().lower().replace(" ", "_"): name
            for name in self._parser.sections()
            if name not in _KNOWN_SECTIONS
        }
        near = nearest(section, unknown)
        missing = [each for each in _READ if not self._parser.has_section(each)]
        # The name of two sections at once is advice for the nearer one alone.
        return unknown[near] if near and nearest(near, missing) == section else None

    def _repair(self, section: str, key: str) -> str:
        """What to do about a key that is missing."""
        here = self._parser.options(section)
        near = nearest(key.lower(), [name for name in here if name not in _KNOWN_KEYS])
        missing = [name.lower() for name in _READ[section] if name.lower() not in here]
        if near and nearest(near, missing) == key.lower():
            return f"rename {show(near, str)}"
        for other in self._parser.sections():
            if other != section and self._parser.has_option(other, key):
                return f"move it there from [{other[:60]}]"
        return f"add {key}: {_READ[section][key]}"

    def name(self, section: str, key: str) -> str:
        """A text that a design can be called; empty in its place if it is broken."""
        found = self.given(section, key)
        if found is None:
            return ""
        rule = text(MAX_NAME_CHARACTERS, "scale_sim")["rule"]
        self.problems += rule(found, self.where(section, key))
        return found

    def whole(self, section: str, key: str, largest: int) -> int:
        """A whole number from 1; 1 in its place if it is broken."""
        found = self.given(section, key)
        if found is None:
            return 1
        where = self.where(section, key)
        if _WHOLE.fullmatch(found):
            problems = integer(1, largest)["rule"](int(found), where)
        else:
            got = show(found, str)
            if _DIGITS.fullmatch(found):
                got = f"a number of {len(found.lstrip('+-'))} digits"
            problems = [
                f"{where} must be an integer from 1 to {largest}, got {got}; "
                "use a whole number in that range"
            ]
        self.problems += problems
        return 1 if problems else int(found)

    def number(self, section: str, key: str) -> float:
        """A bandwidth in bytes per cycle; 1 in its place if it is broken."""
        found = self.given(section, key)
        if found is None:
            return 1.0
        where = self.where(section, key)
        try:
            number = float(found)
        except ValueError:
            number = math.nan
        if math.isnan(number):
            problems = [
                f"{where} must be one finite number from 0.001 to {_UNLIMITED_BYTES_PER_CYCLE}, "
                f"got {show(found, str)}; use a number in that range"
            ]
        else:
            problems = real(0.001, _UNLIMITED_BYTES_PER_CYCLE)["rule"](number, where)
        self.problems += problems
        return 1.0 if problems else number

    def choice(self, section: str, key: str, names: tuple[str, ...]) -> str:
        """One of a few names, spelled so; the first in its place if it is broken."""
        found = self.given(section, key)
        if found is None or found in names:
            return found or names[0]
        near = {name.lower(): name for name in names}.get(found.lower())
        self.problems.append(
            f"{self.where(section, key)} must be {quoted(names)}, got {show(found, str)}; "
            f"{choose(near or found, names)}"
        )
        return names[0]

    def must_be_off(self, section: str, key: str) -> None:
        """A feature that is not modelled: missing, or false."""
        found = self._parser.get(section, key, fallback="false")
        if found.lower() in _OFF:
            return
        why = "is not supported" if found.lower() in _ON else "is no truth value"
        self.problems.append(
            f"{self.where(section, key)} must be False, got {show(found, str)}, which {why}; "
            "set it to False"
        )


def _label(path: object) -> str:
    """How messages call a file."""
    try:
        return os.fsdecode(path)  # type: ignore[arg-type]
    except TypeError:
        return "SCALE-Sim config"


def _read(path: str | os.PathLike[str], label: str) -> str:
    """The text of a file."""
    if not isinstance(path, str | bytes | os.PathLike):
        raise ConfigError(f"{label} must be the path of a .cfg file, got {show(path)}; give a path")
    try:
        refuse_endless(path)
        with open(path, "rb") as file:
            content = file.read(_LARGEST_FILE_BYTES + 1)
        found = content[:_LARGEST_FILE_BYTES].decode("utf-8-sig")
    except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        fix = "save it as UTF-8" if isinstance(error, UnicodeError) else "check the path"
        raise ConfigError(
            f"{label} must be a readable file of UTF-8 text, got: {reason}; {fix}"
        ) from error
    if len(content) > _LARGEST_FILE_BYTES:
        raise ConfigError(
            f"{label} must be a file of at most {_LARGEST_FILE_BYTES} bytes, got more; "
            "give SCALE-Sim's .cfg file"
        )
    return found
