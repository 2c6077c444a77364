"""SCALE-Sim topologies become traces of shapes; messages of broken ones word for word."""

from pathlib import Path

import pytest

from workloads import Gemm, TraceError, WorkloadTrace, read_topology

HEADER = (
    "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, "
    "Strides,"
)
CONV = f"{HEADER}\nConv1 ,224 ,224 ,11 ,11 ,3 ,96 ,4 ,\nFC, 1, 1, 1, 1, 512, 1000, 1,\n"
PRODUCTS = "Layer, M, N, K,\nqkv, 128, 1536, 512,\nup, 128, 768, 512,\n"


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path("x.csv")


def message(path, text) -> str:
    path.write_text(text)
    with pytest.raises(TraceError) as caught:
        read_topology(path)
    return str(caught.value)


def test_convolutions(path):
    path.write_text(CONV)
    trace = read_topology(path)
    conv, fc = trace.layers
    # ceil((224 - 11 + 4) / 4) = ceil(54.25) = 55: the last window reaches beyond the input
    assert conv.gemm == Gemm(m=55 * 55, n=96, k=11 * 11 * 3)
    assert (conv.name, conv.input_shape, conv.output_shape) == (
        "Conv1",
        (1, 3, 224, 224),
        (1, 96, 55, 55),
    )
    # memory sees the feature map, not 3025 x 363 unfolded elements
    assert conv.input_elements == 3 * 224 * 224
    assert fc.gemm == Gemm(m=1, n=1000, k=512)
    assert fc.input_elements == 512
    assert all(layer.weights_are_parameters and layer.images == 1 for layer in trace.layers)
    assert list(trace.graph.edges) == [("Conv1", "FC")]
    assert trace.provenance == {"model": "x", "source": "SCALE-Sim topology, shapes alone"}


def test_products(path):
    path.write_text(PRODUCTS)
    trace = read_topology(path)
    assert [(layer.name, layer.gemm) for layer in trace.layers] == [
        ("qkv", Gemm(m=128, n=1536, k=512)),
        ("up", Gemm(m=128, n=768, k=512)),
    ]
    assert [layer.input_elements for layer in trace.layers] == [128 * 512] * 2


def test_uneven_filters_and_strides(path):
    path.write_text(f"{HEADER}\na, 9, 7, 3, 1, 2, 5, 3,\n")
    # ceil((9 - 3 + 3) / 3) = 3, ceil((7 - 1 + 3) / 3) = 3
    assert read_topology(path).layers[0].gemm == Gemm(m=9, n=5, k=6)


def test_depthwise_layers_are_products_per_channel(path):
    path.write_text(f"{HEADER}\nConv2DP, 8, 8, 3, 3, 16, 1, 1,\n")
    (layer,) = read_topology(path).layers
    assert layer.gemm == Gemm(m=36, n=1, k=9, count=16)
    assert (layer.input_elements, layer.output_shape) == (16 * 64, (1, 16, 6, 6))


@pytest.mark.parametrize(
    "text",
    [
        CONV.replace(",\n", "\n"),
        CONV.replace("\n", "\r\n"),
        CONV.replace("\n", "\r"),
        CONV.replace("\n", "\n\n  \n"),
        CONV.replace(",4 ,", ",4 ,#stem"),
        CONV.replace("IFMAP Height", "IFMAP height").replace("Num Filter", "num_filters"),
        CONV.replace("Strides,", "Stride,,,"),
        "\ufeff" + CONV,
        CONV.replace("Strides,", "Strides, Sparsity,"),
        CONV.replace("Strides,", "Strides, Sparsity,").replace(",4 ,", ",4, 1:1,"),
        CONV.replace(",4 ,", ",4, 1:1,"),
        CONV.rstrip("\n"),
    ],
)
def test_other_spellings_of_a_topology(path, text):
    path.write_text(CONV)
    expected = read_topology(path).layers
    path.write_bytes(text.encode())
    assert read_topology(str(path)).layers == expected


def test_a_trace_of_a_topology_is_saved_and_loaded(path):
    path.write_text(CONV)
    trace = read_topology(path)
    loaded = WorkloadTrace.load(trace.save(path.parent / "saved"))
    assert loaded.layers == trace.layers
    with pytest.raises(TraceError, match="got shapes alone"):
        loaded.rows("Conv1")


NUMBER = "must be a whole number from 1 to 2147483647"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("a,9,9,3,3,2,x,1,", f"column 7 'Num Filter' {NUMBER}, got 'x'; write the size in digits"),
        ("a,9,9,3,3,2,,1,", f"column 7 'Num Filter' {NUMBER}, got ''; write the size in digits"),
        (
            "a,0,9,3,3,2,5,1,",
            f"column 2 'IFMAP Height' {NUMBER}, got '0'; write the size in digits",
        ),
        ("a,9,9,3,3,-2,5,1,", f"column 6 'Channels' {NUMBER}, got '-2'; write the size in digits"),
        (
            "a,9,9,3,3,2.5,5,1,",
            f"column 6 'Channels' {NUMBER}, got '2.5'; write the size in digits",
        ),
        ("a,9,9,3,3,2,5,0,", f"column 8 'Strides' {NUMBER}, got '0'; write the size in digits"),
        (
            "a,9,9,3,3,2,5," + "9" * 5000 + ",",
            f"column 8 'Strides' {NUMBER}, got '{'9' * 39} ... {'9' * 15}; "
            "write the size in digits",
        ),
        (
            "a,9,9,3,10,2,5,1,",
            "column 5 'Filter Width' must be at most IFMAP Width = 9, got 10; "
            "use 9 or less, or give the padded input",
        ),
        (
            ",9,9,3,3,2,5,1,",
            "column 1 'Layer name' must be 1 to 200 printable characters, got ''; "
            "give the layer a name of that length",
        ),
        (
            "a,9,9,3,3,2,5,",
            "must have the 8 columns of line 1, got 7: 'a,9,9,3,3,2,5,'; give one value for each",
        ),
        (
            "a,9,9,3,3,2,5,1,2,",
            "column 9 (without a header) must be empty, got '2', which SCALE-Sim does not read; "
            "leave it out, or give it by the sizes (padding as a larger input)",
        ),
        (
            "a,9,9,3,3,2,5,1,2:4,",
            "column 9 'Sparsity' must be '1:1', got '2:4', which is not supported; use '1:1'",
        ),
        (
            "a,2000000000,2000000000,1,1,1,1,2000000000,",
            "must have at most 281474976710656 multiply-accumulates and input elements, got "
            "4000000000000000000; use smaller sizes",
        ),
    ],
)
def test_message_word_for_word(path, row, expected):
    found = message(path, f"{CONV}\n{row}\n")
    assert found == f"x.csv line 5 {expected}"


def test_names_that_repeat_are_numbered_as_in_a_capture(path):
    rows = ["FC", "FC", "other", "FC#3", "FC"]
    path.write_text(
        HEADER + "".join(f"\n{name},1,1,1,1,{k},2,1," for k, name in enumerate(rows, 5))
    )
    trace = read_topology(path)
    assert [(layer.name, layer.gemm.k) for layer in trace.layers] == [
        ("FC", 5),
        ("FC#2", 6),
        ("other", 7),
        ("FC#3", 8),
        ("FC#4", 9),  # FC#3 is the name of another layer
    ]
    assert len(trace.graph.edges) == 4


def test_depthwise_is_told_by_the_name_that_was_given(path):
    path.write_text(f"{HEADER}\nDP,8,8,3,3,16,1,1,\nDP,8,8,3,3,16,1,1,\n")
    assert [layer.gemm.count for layer in read_topology(path).layers] == [16, 16]


@pytest.mark.parametrize(
    "header",
    [
        "L,M,N,K,",
        "Name,M,N,K",
        "Op, m, n, k,",
        "Gemm,M,N,K,",
        ",M,N,K,",
        "Layer Name, M (rows), N [columns], K, Sparsity,",
        "Layer,M,N,K,,,Eh,note",
        '"Layer","M","N","K",',
        "Layer\tM\tN\tK",
        "Layer;M;N;K;",
    ],
)
def test_headers_of_products_that_scale_sim_ignores(path, header):
    rows = PRODUCTS.split("\n", 1)[1]
    separator = next((each for each in "\t;" if each in header), ",")
    path.write_text(f"{header}\n{rows.replace(',', separator)}")
    assert [(layer.name, layer.gemm) for layer in read_topology(path).layers] == [
        ("qkv", Gemm(m=128, n=1536, k=512)),
        ("up", Gemm(m=128, n=768, k=512)),
    ]


@pytest.mark.parametrize(
    "text",
    [
        CONV.replace("IFMAP Height", "IFMAP Width"),  # so in files that come with SCALE-Sim
        CONV.replace("Strides,", "Strides, Batch Size,").replace(",4 ,", ",4, 1,"),
        CONV.replace("Strides,", "Strides,,,Eh,Ew,e2").replace("\nFC", "\n,,,,,,,,,,,,\nFC"),
        CONV.replace(",4 ,", ",4 ,,,,,"),
        CONV.replace(",4 ,", ",4 , the stem"),
        CONV.replace("\nFC", "\n# the classifier\nFC"),
        CONV.replace("Strides", "Stride height, Stride width"),
        CONV.replace("Strides", "Stride height"),
        CONV.replace("Strides", "Stride height, Stride width").replace(",4 ,", ",4 ,4 ,"),
        # as SCALE-Sim's own writer gives a dense layer
        CONV.replace("Strides", "Stride height,Stride width").replace(",4 ,", ",4 ,4 ,1,1,"),
        CONV.replace("Conv1 ", '"Conv1"'),
        CONV.replace(",", "\t"),
        "Op,H,W,R,S,C,K,Stride\n" + CONV.split("\n", 1)[1],
        "Op,in_h,in_w,k_h,k_w,in_ch,out_ch,stride\n" + CONV.split("\n", 1)[1],
        "Op,IH,IW,KH,KW,IC,OC,S\n" + CONV.split("\n", 1)[1],
        "Op,ifmap h,ifmap w,filt h,filt w,num ch,num filt,s\n" + CONV.split("\n", 1)[1],
    ],
)
def test_headers_and_rows_of_convolutions_that_change_nothing(path, text):
    test_other_spellings_of_a_topology(path, text)


def test_two_strides(path):
    path.write_text(HEADER.replace("Strides", "Stride H, Stride W") + "\na,9,7,3,1,2,5,3,2,\n")
    # ceil((9 - 3 + 3) / 3) = 3, ceil((7 - 1 + 2) / 2) = 4
    assert read_topology(path).layers[0].gemm == Gemm(m=12, n=5, k=6)


def test_rows_of_products(path):
    assert message(path, PRODUCTS + "down, 1, 2,\n") == (
        "x.csv line 4 must have the 4 columns of line 1, got 3: 'down, 1, 2,'; "
        "give one value for each"
    )
    assert message(path, PRODUCTS + "down, 1, 2, 0,\n") == (
        f"x.csv line 4 column 4 'K' {NUMBER}, got '0'; write the size in digits"
    )
    assert message(path, PRODUCTS + "#down, 1, 2, 3,\n") == (
        "x.csv line 4 must be a layer or a comment, got '#down, 1, 2, 3,', which SCALE-Sim takes "
        "for a layer; leave out the line, or the '#'"
    )
    assert message(path, PRODUCTS + "AlphaGoZero,\n") == (
        "x.csv line 4 must have the 4 columns of line 1, got 1: 'AlphaGoZero,'; "
        "give one value for each, or leave the line out if it is a title"
    )
    assert message(path, "Layer,M,N,K,Batch,\na,1,2,3,8,") == (
        "x.csv line 2 column 5 'Batch' must be 1, got '8', as SCALE-Sim counts one image; use 1 "
        "(products may hold a batch in M)"
    )


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        ("", "got an empty line; write that header into line 1, which SCALE-Sim skips"),
        (
            "Conv1, 9, 9, 3,",
            "got the sizes of a layer, 'Conv1, 9, 9, 3'; put a header above them, as SCALE-Sim "
            "skips line 1",
        ),
        ("Layer M N K", "got one column, 'Layer M N K'; put commas between the columns"),
        ("\0", "got one column, '\\x00'; put commas between the columns"),
        (
            "M, N, K,",
            "got 'M' in column 1, where the layers' names stand; put a column with a name for each "
            "layer before the others",
        ),
        (
            "Layer, M, K, N,",
            "got 'K' in column 3, where 'N' is wanted; call column 3 'N' if it holds that, or move "
            "the columns into that order, in every row",
        ),
        (
            HEADER.replace("Filter Width", "Dilation"),
            "got 'Dilation' in column 5, where 'Filter Width' is wanted; call column 5 "
            "'Filter Width' if it holds that, or move the columns into that order, in every row",
        ),
        (
            "Layer, M, N,",
            "got no column 4, 'K', after 'N'; add the columns that are missing, to every row",
        ),
    ],
)
def test_the_header_decides(path, first, problem):
    assert message(path, f"{first}\na, 1, 1, 1,\n") == (
        f"x.csv line 1 must be the header {HEADER[:-1]!r} or 'Layer, M, N, K', {problem}"
    )


def test_a_header_alone(path):
    assert message(path, HEADER) == (
        "x.csv must hold a layer, got a header alone; add a row for each layer"
    )


def test_many_violations_are_cut(path):
    whole = message(path, CONV + "a,\n" * 50)
    found = whole.split("\n")
    assert found[-1] == f"x.csv breaks {50 - (len(found) - 1)} more rules; mend these first"
    assert all(line.startswith("x.csv line ") and line.endswith("title") for line in found[:-1])
    assert 5 < len(found) <= 21
    assert len(whole) <= 2000


def test_files_that_cannot_be_read(path, tmp_path):
    for given, reason in (
        ("absent.csv", "No such file or directory"),
        (tmp_path, "Is a directory"),
        ("a\0b.csv", "embedded null byte"),
    ):
        with pytest.raises(TraceError, match=reason):
            read_topology(given)
    for given in (None, 3, True, 1.5, [], object()):
        with pytest.raises(TraceError, match=r"must be the path of a \.csv file, got a "):
            read_topology(given)
    path.write_bytes(b"\xff\xfe\x00garbage")
    with pytest.raises(TraceError, match=r"^x\.csv must be a readable file of UTF-8 text, got: "):
        read_topology(path)
    path.write_bytes(b"\n" * (2**24 + 1))
    with pytest.raises(TraceError, match="must be a file of at most 16777216 bytes, got more"):
        read_topology(path)
