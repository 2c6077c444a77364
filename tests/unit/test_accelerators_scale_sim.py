"""SCALE-Sim configurations become designs; messages of broken ones word for word."""

import dataclasses
import re
from pathlib import Path

import pytest

from accelerators import Accelerator, ConfigError, Dram, SramBuffer, SystolicArray
from accelerators import read_scale_sim_config as read

GOOD = """\
[general]
run_name = tiny

[architecture_presets]
ArrayHeight:    32
ArrayWidth:     24
IfmapSramSzkB:   64
FilterSramSzkB:  48
OfmapSramSzkB:   16
IfmapOffset:    0
Bandwidth : 10
Dataflow : os

[sparsity]
SparsitySupport : false

[run_presets]
InterfaceBandwidth: USER
UseRamulatorTrace: False
"""
DESIGN = Accelerator(
    name="tiny",
    array=SystolicArray(rows=32, columns=24, dataflow="output_stationary"),
    # 32 operands of a byte a cycle; 32 sums of four bytes, read and written
    activation_buffer=SramBuffer(capacity_bytes=64 * 1024, width_bits=256),
    weight_buffer=SramBuffer(capacity_bytes=48 * 1024, width_bits=256),
    output_buffer=SramBuffer(capacity_bytes=16 * 1024, width_bits=32 * 32, ports=2),
    dram=Dram(bandwidth_bytes_per_cycle=10),
    clock_hz=1e9,
)
SECTION = "[architecture_presets]"


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path("x.cfg")


def test_a_configuration_is_read(path):
    path.write_text(GOOD)
    assert read(path) == read("x.cfg") == read(b"x.cfg") == DESIGN
    assert read(path, clock_hz=5e8) == dataclasses.replace(DESIGN, clock_hz=5e8)


@pytest.mark.parametrize(
    ("name", "dataflow"),
    [("ws", "weight_stationary"), ("os", "output_stationary"), ("is", "input_stationary")],
)
def test_dataflows(path, name, dataflow):
    path.write_text(GOOD.replace(": os", f": {name}"))
    array = read(path).array
    assert (array.dataflow, array.fold_timing) == (dataflow, "sequential")


def test_scale_sim_ignores_the_bandwidth_it_calculates(path):
    for text in (GOOD, GOOD.replace("Bandwidth : 10\n", "")):
        path.write_text(text.replace("USER", "CALC"))
        assert read(path).dram == Dram(bandwidth_bytes_per_cycle=65536)


def test_keys_in_any_case_windows_lines_and_a_byte_order_mark(path):
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("ArrayHeight", "ARRAYHEIGHT").encode())
    assert read(path) == DESIGN
    path.write_bytes(GOOD.replace("\n", "\r\n").encode())
    assert read(path) == DESIGN


def test_sections_of_features_may_be_missing(path):
    path.write_text(GOOD.replace("[sparsity]\nSparsitySupport : false\n", ""))
    assert read(path) == DESIGN


def test_ports_of_the_largest_array(path):
    # 4096 bytes of operands and 2 x 4096 x 4 bytes of sums a cycle, 512 bytes a port
    text = GOOD.replace(":    32", ": 4096").replace(":   16", ": 32")
    path.write_text(text)
    design = read(path)
    assert (design.activation_buffer.ports, design.activation_buffer.bytes_per_cycle) == (8, 4096)
    assert (design.output_buffer.ports, design.output_buffer.bytes_per_cycle) == (64, 32768)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "ArrayHeight:    32",
            "ArrayHeight: 0",
            f"x.cfg {SECTION} ArrayHeight must be an integer from 1 to 4096, got 0; use 1",
        ),
        (
            "ArrayWidth:     24",
            "ArrayWidth: -24",
            f"x.cfg {SECTION} ArrayWidth must be an integer from 1 to 4096, got -24; use 1",
        ),
        (
            "ArrayWidth:     24",
            "ArrayWidth: many",
            f"x.cfg {SECTION} ArrayWidth must be an integer from 1 to 4096, got 'many'; "
            "use a whole number in that range",
        ),
        (
            "ArrayWidth:     24",
            "ArrayWidth: 2.5",
            f"x.cfg {SECTION} ArrayWidth must be an integer from 1 to 4096, got '2.5'; "
            "use a whole number in that range",
        ),
        (
            "ArrayWidth:     24",
            "ArrayWidth:",
            f"x.cfg {SECTION} ArrayWidth must be an integer from 1 to 4096, got ''; "
            "use a whole number in that range",
        ),
        (
            "ArrayWidth:     24",
            "ArrayWidth: 24 # columns",
            f"x.cfg {SECTION} ArrayWidth must be an integer from 1 to 4096, got '24 # columns'; "
            "use a whole number in that range",
        ),
        (
            "IfmapSramSzkB:   64",
            "IfmapSramSzkB: 1048577",
            f"x.cfg {SECTION} IfmapSramSzkB must be an integer from 1 to 1048576, got 1048577; "
            "use 1048576",
        ),
        (
            "IfmapSramSzkB:   64",
            "IfmapSramSzkB: " + "9" * 5000,
            f"x.cfg {SECTION} IfmapSramSzkB must be an integer from 1 to 1048576, "
            "got a number of 5000 digits; use a whole number in that range",
        ),
        (
            "FilterSramSzkB:  48\n",
            "",
            f"x.cfg {SECTION} FilterSramSzkB must be given, got nothing; add FilterSramSzkB: 512",
        ),
        (
            "ArrayHeight:    32",
            "ArrayHeigth: 32",
            f"x.cfg {SECTION} ArrayHeight must be given, got nothing; rename 'arrayheigth'",
        ),
        (
            "Dataflow : os",
            "Dataflow : rs",
            f"x.cfg {SECTION} Dataflow must be one of 'ws', 'os', 'is', got 'rs'; use one of these",
        ),
        (
            "Dataflow : os",
            "Dataflow : OS",
            f"x.cfg {SECTION} Dataflow must be one of 'ws', 'os', 'is', got 'OS'; use 'os'",
        ),
        (
            "Bandwidth : 10",
            "Bandwidth : 0",
            f"x.cfg {SECTION} Bandwidth must be a finite number from 0.001 to 65536, got 0.0; "
            "use 0.001",
        ),
        (
            "Bandwidth : 10",
            "Bandwidth : 1e400",
            f"x.cfg {SECTION} Bandwidth must be a finite number from 0.001 to 65536, got inf; "
            "use 65536",
        ),
        (
            "Bandwidth : 10",
            "Bandwidth : 10, 10, 10",
            f"x.cfg {SECTION} Bandwidth must be one finite number from 0.001 to 65536, "
            "got '10, 10, 10'; use a number in that range",
        ),
        (
            "Bandwidth : 10\n",
            "",
            f"x.cfg {SECTION} Bandwidth must be given, got nothing; add Bandwidth: 10",
        ),
        (
            "USER",
            "AUTO",
            "x.cfg [run_presets] InterfaceBandwidth must be one of 'USER', 'CALC', got 'AUTO'; "
            "use one of these",
        ),
        (
            "run_name = tiny",
            "run_name =",
            "x.cfg [general] run_name must be a string of 1 to 200 characters, got ''; "
            "use a name such as 'scale_sim'",
        ),
        (
            "[run_presets]",
            "[run_preset]",
            "x.cfg must have a section [run_presets], got none; rename [run_preset]",
        ),
        (
            "[general]\nrun_name = tiny\n",
            "",
            "x.cfg must have a section [general], got none; add [general] (run_name: my_design)",
        ),
        (
            "OfmapSramSzkB:   16",
            "ArrayHeight : 16",
            "x.cfg must be [section] lines and key: value lines, each section once and "
            "each key once in it, got: While reading from 'the file' [line 9]: option "
            "'arrayheight' in section 'architecture_presets' already exists; mend that line",
        ),
        (
            "ArrayWidth:     24\nIfmapSramSzkB:   64\nFilterSramSzkB:  48\nOfmapSramSzkB:   16\n",
            "ArrayWidth: 160\nIfmapSramSzkB: 1\nFilterSramSzkB: 1\nOfmapSramSzkB: 1\n",
            f"x.cfg {SECTION} OfmapSramSzkB must hold what the 32x160 array moves in a cycle, "
            "1280 bytes, got 1 KiB; use 2 or more",
        ),
    ],
)
def test_message_word_for_word(path, old, new, message):
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(caught.value) == message


def follow(text: str, violation: str) -> str:
    """A file after somebody did what a message says, word for word."""
    rule, fix = violation.rsplit("; ", 1)
    if found := re.fullmatch(r"add (\[\w+\]) \((.*)\)", fix):
        keys = found[2].replace("CALC or USER", "CALC").replace(", ", "\n")
        return f"{text}\n{found[1]}\n{keys}\n"
    section = re.search(r"\[(\w+)\]", rule)[1]
    if found := re.fullmatch(r"rename \[(.+)\]", fix):
        return text.replace(f"[{found[1]}]", f"[{section}]")
    key = re.search(r"\] (\w+) must", rule)[1]
    if found := re.fullmatch(r"rename '(.+)'", fix):
        return re.sub(rf"(?im)^{re.escape(found[1])}\b", key, text)
    line = found[1] if (found := re.fullmatch(r"add (.*)", fix)) else ""
    if not line:
        assert fix.startswith("move it there from [")
        line = re.search(rf"(?m)^{key}.*$", text)[0]
        text = text.replace(f"{line}\n", "")
    return text.replace(f"[{section}]\n", f"[{section}]\n{line}\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD[: GOOD.index("[run_presets]")],
        GOOD.replace("[run_presets]", "[Run Presets]"),
        GOOD.replace("[general]", "[General]").replace("[run_presets]", "[run]"),
        GOOD.replace("[architecture_presets]", "[arch_presets]"),
        GOOD.replace("[architecture_presets]", "[network_presets]"),
        GOOD.replace("SramSzkB", "SramSz"),
        GOOD.replace("FilterSramSzkB:  48\nOfmapSramSzkB:   16", "SramSzkB: 48"),
        GOOD.replace("Bandwidth : 10\n", "InterfaceBandwidth: USER\n").replace(
            "\nInterfaceBandwidth: USER\nUse", "\nUse"
        ),
        GOOD.replace("Dataflow : os\n", "").replace("run_name", "Dataflow : os\nrun_name"),
        GOOD.replace("ArrayHeight", "Array_Height").replace("ArrayWidth", "Arraywidht"),
    ],
)
def test_following_the_advice_repairs_a_file(path, text):
    """What is missing is never taken from a section or a key that is read for itself."""
    assert text != GOOD
    for _ in range(12):
        path.write_text(text)
        try:
            read(path)
        except ConfigError as error:
            text = follow(text, error.violations[0])
        else:
            return
    raise AssertionError(text)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("sparsity", "SparsitySupport"),
        ("sparsity", "OptimizedMapping"),
        ("layout", "IfmapCustomLayout"),
        ("layout", "FilterCustomLayout"),
        ("run_presets", "UseRamulatorTrace"),
    ],
)
def test_what_is_not_modelled_is_refused(path, section, key):
    lines = [line for line in GOOD.splitlines() if key not in line]
    if f"[{section}]" not in lines:
        lines.append(f"[{section}]")

    def having(value):
        at = lines.index(f"[{section}]") + 1
        path.write_text("\n".join([*lines[:at], f"{key}: {value}", *lines[at:]]))
        return read(path)

    for off in ("False", "false", "no", "0", "OFF"):
        assert having(off) == DESIGN
    for on in ("True", "true", "yes", "1"):
        with pytest.raises(ConfigError) as caught:
            having(on)
        assert str(caught.value) == (
            f"x.cfg [{section}] {key} must be False, got {on!r}, which is not supported; "
            "set it to False"
        )
    with pytest.raises(ConfigError, match="must be False, got 'maybe', which is no truth value"):
        having("maybe")


def test_every_violation_comes_in_one_error(path):
    path.write_text(
        "[architecture_presets]\nArrayHeight: 0\nDataflow: x\nBandwidth: fast\n"
        "[run_presets]\nInterfaceBandwidth: USER\n[sparsity]\nSparsitySupport: True\n"
    )
    with pytest.raises(ConfigError) as caught:
        read(path)
    keys = [violation.split(" must ")[0] for violation in caught.value.violations]
    assert keys == [
        "x.cfg",  # section [general]
        f"x.cfg {SECTION} ArrayHeight",
        f"x.cfg {SECTION} ArrayWidth",
        f"x.cfg {SECTION} IfmapSramSzkB",
        f"x.cfg {SECTION} FilterSramSzkB",
        f"x.cfg {SECTION} OfmapSramSzkB",
        f"x.cfg {SECTION} Dataflow",
        f"x.cfg {SECTION} Bandwidth",
        "x.cfg [sparsity] SparsitySupport",
    ]


def test_files_that_cannot_be_read(path, tmp_path):
    for given, reason in (
        ("absent.cfg", "No such file or directory"),
        (tmp_path, "Is a directory"),
        ("a\0b.cfg", "embedded null byte"),
    ):
        with pytest.raises(ConfigError, match=reason):
            read(given)
    for given in (None, 3, True, 1.5, [], object()):
        with pytest.raises(ConfigError, match=r"must be the path of a \.cfg file, got "):
            read(given)
    path.write_bytes(b"\xff\xfe\x00garbage")
    with pytest.raises(ConfigError, match=r"^x\.cfg must be a readable file of UTF-8 text, got: "):
        read(path)
    path.write_text("#" * (2**20 + 1))
    with pytest.raises(ConfigError, match=r"must be a file of at most 1048576 bytes, got more"):
        read(path)
    path.write_text("")
    with pytest.raises(ConfigError, match=r"must have a section \[general\], got none; add \[gen"):
        read(path)
    path.write_text("ArrayHeight: 3")
    with pytest.raises(ConfigError, match="File contains no section headers"):
        read(path)


def test_a_broken_clock_is_named(path):
    path.write_text(GOOD)
    with pytest.raises(ConfigError, match=r"^Accelerator\.clock_hz must be a finite number"):
        read(path, clock_hz=0)
