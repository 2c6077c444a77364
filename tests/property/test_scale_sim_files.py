"""Whatever a SCALE-Sim file holds, it is read, or refused with the one error of its room."""

import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from accelerators import Accelerator, ConfigError, area_by_part, read_scale_sim_config
from codesign.cli import app as cli
from workloads import TraceError, WorkloadTrace, read_topology

DATA = Path(__file__).parents[1] / "crosscheck" / "data" / "scale_sim"
CONFIGS = [path.read_bytes() for path in sorted(DATA.glob("*.cfg"))]
TOPOLOGIES = [
    (DATA / "alexnet.csv").read_bytes(),
    (DATA / "resnet18.csv").read_bytes(),
    b"Layer, M, N, K,\nqkv, 128, 1536, 512,\nup, 128, 768, 512,\n",
]
SNIPPETS = st.one_of(
    st.binary(max_size=6),
    st.text(max_size=6).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.integers(-(10**30), 10**30).map(lambda number: str(number).encode()),
    st.floats().map(lambda number: str(number).encode()),
    st.sampled_from([b"", b"9" * 5000]),
    st.sampled_from(
        b" ~\n~\r~\0~,~:~=~[~]~#~\t~%(x)s~True~1:1~2:4~DP~[DEFAULT]~[sparsity]~USER~Sparsity~0~-1~"
        b"1e999~nan~\xef\xbb\xbf~\xe2\x80\xa8~\xd9\xa3".split(b"~")
    ),
)


@st.composite
def mutated(draw, files):
    """A good file with a few places overwritten, lines dropped, repeated or joined."""
    content = draw(st.sampled_from(files))
    for _ in range(draw(st.integers(1, 4))):
        lines = content.split(b"\n")
        where = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["bytes", "word", "drop", "repeat", "join", "cut"])):
            case "bytes":
                start = draw(st.integers(0, len(content)))
                end = start + draw(st.integers(0, 6))
                content = content[:start] + draw(SNIPPETS) + content[end:]
                continue
            case "word":
                words = lines[where].replace(b":", b",").split(b",")
                word = draw(st.sampled_from(words))
                if word:
                    lines[where] = lines[where].replace(word, draw(SNIPPETS), 1)
            case "drop":
                del lines[where]
            case "repeat":
                lines.insert(draw(st.integers(0, len(lines))), lines[where])
            case "join":
                lines[where : where + 2] = [b"".join(lines[where : where + 2])]
            case "cut":
                lines = lines[:where]
        content = b"\n".join(lines)
    return content


def check_config(content: bytes) -> None:
    """A file that is read describes a design that can be priced and written out again."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.cfg"
        path.write_bytes(content)
        try:
            design = read_scale_sim_config(path)
        except ConfigError as error:
            assert error.violations
            for violation in error.violations:
                assert violation.startswith(str(path))
                assert " must " in violation
                assert "got" in violation
                assert "; " in violation
                assert len(violation) < 400 + len(str(path))
            return
    assert Accelerator.from_dict(design.to_dict()) == design
    assert all(math.isfinite(area) for area in area_by_part(design).values())


def check_topology(content: bytes) -> None:
    """A file that is read describes layers whose counts fit 64 bits."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.csv"
        path.write_bytes(content)
        try:
            trace = read_topology(path)
        except TraceError as error:
            lines = str(error).split("\n")
            assert 1 <= len(lines) <= 21
            for line in lines:
                assert line.startswith(str(path))
                assert "; " in line
                assert len(line) < 500 + len(str(path))
            return
    assert isinstance(trace, WorkloadTrace)
    for layer in trace.layers:
        assert 1 <= layer.gemm.macs <= 2**48
        assert 1 <= layer.input_elements <= 2**48


@settings(max_examples=1000, deadline=None)
@given(mutated(CONFIGS))
def test_a_mutated_config_is_read_or_refused(content):
    check_config(content)


@settings(max_examples=1000, deadline=None)
@given(mutated(TOPOLOGIES))
def test_a_mutated_topology_is_read_or_refused(content):
    check_topology(content)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(content):
    check_config(content)
    check_topology(content)
    check_topology(b"Layer, M, N, K,\n" + content)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="[]=:,#;% \n\t\raA01.-", max_size=80))
def test_text_of_the_format_s_own_characters(text):
    check_config(text.encode())
    check_config(CONFIGS[0] + text.encode())
    check_topology(TOPOLOGIES[0] + text.encode())


SIZES = st.integers(0, 32).flatmap(lambda bits: st.integers(1, 2**bits))


@given(SIZES, SIZES, SIZES, st.sampled_from(["ws", "os", "is"]))
@settings(max_examples=25, deadline=None)
def test_a_product_of_any_size_is_timed_or_refused(m, n, k, dataflow):
    with tempfile.TemporaryDirectory() as folder:
        topology = Path(folder) / "topology.csv"
        topology.write_text(f"Layer, M, N, K,\nlarge, {m}, {n}, {k},\n")
        result = CliRunner().invoke(
            cli.app,
            ["simulate", "--scale-sim", str(DATA / f"a32_{dataflow}.cfg"), str(topology)],
        )
    assert result.exit_code in (0, 2), result.exception
    if result.exit_code:
        assert result.stderr.startswith("Error: ")


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None)
@given(mutated(CONFIGS), mutated(TOPOLOGIES), st.binary(max_size=2000))
def test_many_more_files(config, topology, content):
    check_config(config)
    check_topology(topology)
    check_config(content)
    check_topology(content)
