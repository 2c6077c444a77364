"""What capture does with the operations of PyTorch: one table, for the hook and for the docs.

`docs/operations.md` is written from it: `python -m workloads.capturing.operation_table >
docs/operations.md`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

# Ways of the hook. The first four are products whose arguments it reads.
PRODUCT, CONVOLUTION, ATTENTION, DISTANCE = "product", "convolution", "attention", "distance"
OPENED = "opened"  # its own kernel runs under the hook
COMPOSITE = "composite"  # PyTorch takes it apart
OUTSIDE = "outside"  # not of PyTorch: opened, and told of if that shows no product
REFUSED, NOT_COUNTED, NO_PRODUCT = "refused", "not counted", "no product"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the table.

    Attributes:
        what: what the operations compute.
        way: of the hook, one of those above.
        names: the operations, without `aten::` and the `_` of those in place.
        namespace: other than ATen; `names` may be empty then, for all of it.
        text: why, or for refused ones the way out as it stands in the message.
    """

    what: str
    way: str
    names: frozenset[str] = frozenset()
    namespace: str = "aten"
    text: str


def _entry(what: str, way: str, names: str, text: str, namespace: str = "aten") -> Entry:
    return Entry(what=what, way=way, names=_names(names), text=text, namespace=namespace)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PLAIN = "call the plain torch operation instead"
_FLOAT = "capture the floating-point model"
_MODULE = "call it as a torch.nn module that is not scripted"
_DENSE = "make the weights dense"
_CPU = "run the model on the CPU"
_CONV = "call torch.nn.functional.conv2d or its like"
_UNOPTIMISED = (
    "capture the model before torch.jit.optimize_for_inference, to_mkldnn or torch.compile"
)

ENTRIES = (
    _entry(
        "products of matrices and vectors",
        PRODUCT,
        "mm bmm addmm baddbmm addbmm mv addmv dot vdot",
        "one layer each; linear layers, matmul, einsum, tensordot, bilinear forms and recurrent "
        "layers come apart into them",
    ),
    _entry(
        "convolutions, transposed ones too", CONVOLUTION, "convolution _convolution", "one layer"
    ),
    _entry(
        "fused attention",
        ATTENTION,
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
        "_scaled_dot_product_fused_attention_overrideable",
        "two layers, scores and values; refused with dropout",
    ),
    _entry(
        "Euclidean distances by a product",
        DISTANCE,
        "_euclidean_dist _cdist_forward",
        "one layer of k columns where torch.cdist multiplies (p = 2, above 25 rows, or as "
        "compute_mode says); no product where it takes differences",
    ),
    _entry(
        "operations made of products",
        OPENED,
        "_grouped_mm _foreach_mm conv_tbc linalg_matrix_exp linalg_pinv "
        "_scaled_dot_product_attention_math _sparse_semi_structured_apply_dense",
        "their kernels run under the hook: one layer for each product; of _grouped_mm one a group",
    ),
    _entry("a product and its activation", REFUSED, "_addmm_activation", _PLAIN),
    _entry("three-way products", REFUSED, "_trilinear", "write nn.Bilinear as matrix products"),
    _entry(
        "recurrent layers in one kernel",
        REFUSED,
        "mkldnn_rnn_layer _lstm_mps",
        _MODULE,
    ),
    _entry("recurrent layers of a device", REFUSED, "_cudnn_rnn miopen_rnn", _CPU),
    _entry(
        "attention and transformer layers in one kernel",
        REFUSED,
        "_native_multi_head_attention _transformer_encoder_layer_fwd "
        "_triton_multi_head_attention _triton_scaled_dot_attention",
        _MODULE,
    ),
    _entry(
        "attention kernels called directly",
        REFUSED,
        "_flash_attention_forward _flash_attention_forward_no_dropout_inplace "
        "_efficient_attention_forward _cudnn_attention_forward "
        "_scaled_dot_product_attention_math_for_mps",
        "call torch.nn.functional.scaled_dot_product_attention instead",
    ),
    _entry(
        "products and recurrent layers of integers",
        REFUSED,
        "_int_mm _weight_int4pack_mm _weight_int4pack_mm_for_cpu "
        "_weight_int4pack_mm_with_scales_and_zeros _weight_int8pack_mm _mixed_dtypes_linear "
        "_dyn_quant_matmul_4bit _wrapped_quantized_linear_prepacked quantized_lstm quantized_gru "
        "quantized_lstm_cell quantized_gru_cell quantized_rnn_relu_cell quantized_rnn_tanh_cell "
        "fbgemm_linear_int8_weight fbgemm_linear_int8_weight_fp32_activation "
        "fbgemm_linear_fp16_weight fbgemm_linear_fp16_weight_fp32_activation",
        _FLOAT,
    ),
    _entry(
        "products of scaled 8-bit floats",
        REFUSED,
        "_scaled_mm _scaled_mm_v2 _scaled_grouped_mm _scaled_grouped_mm_v2",
        _FLOAT,
    ),
    _entry(
        "convolution kernels of one backend, called directly",
        REFUSED,
        "convolution_overrideable cudnn_convolution cudnn_convolution_transpose "
        "cudnn_convolution_relu cudnn_convolution_add_relu miopen_convolution "
        "miopen_convolution_transpose miopen_convolution_relu miopen_convolution_add_relu "
        "miopen_depthwise_convolution _mps_convolution _mps_convolution_transpose "
        "_nnpack_spatial_convolution _slow_conv2d_forward slow_conv3d_forward slow_conv_dilated2d "
        "slow_conv_dilated3d slow_conv_transpose2d slow_conv_transpose3d _conv_depthwise2d "
        "conv_depthwise3d",
        _CONV,
    ),
    _entry(
        "oneDNN's tensors and optimised TorchScript",
        REFUSED,
        "to_mkldnn mkldnn_linear mkldnn_convolution",
        _UNOPTIMISED,
    ),
    _entry(
        "products with sparse matrices",
        REFUSED,
        "_sparse_mm _sparse_addmm _sparse_sparse_matmul _sparse_mm_reduce_impl hspmm sspaddmm "
        "sparse_sampled_addmm _sparse_semi_structured_mm _sparse_semi_structured_addmm "
        "_sparse_semi_structured_linear _cslt_sparse_mm _spsolve",
        _DENSE,
    ),
    _entry(
        "decompositions and solvers",
        NOT_COUNTED,
        "linalg_inv_ex linalg_inv inverse cholesky cholesky_inverse cholesky_solve "
        "_cholesky_solve_helper linalg_cholesky_ex linalg_solve_triangular triangular_solve "
        "_linalg_solve_ex linalg_lstsq linalg_lu linalg_lu_factor_ex _lu_with_info linalg_lu_solve "
        "lu_unpack linalg_ldl_factor_ex linalg_ldl_solve linalg_qr geqrf ormqr "
        "linalg_householder_product _linalg_svd linalg_eig _linalg_eigh _linalg_eigvals "
        "linalg_eigvals _linalg_det _linalg_slogdet linalg_det",
        "work on whole matrices that is no product of rows and weights",
    ),
    _entry(
        "weighted sums of embeddings",
        NOT_COUNTED,
        "_embedding_bag _embedding_bag_forward_only",
        "a sparse product, with per_sample_weights alone; without them no product",
    ),
    _entry(
        "weighted sums of matrices",
        NOT_COUNTED,
        "_compute_linear_combination",
        "the coefficients of a series, of no hardware's products",
    ),
    _entry(
        "backward kernels called directly",
        NOT_COUNTED,
        "convolution_backward convolution_backward_overrideable linear_backward matmul_backward "
        "_slow_conv2d_backward mps_convolution_backward mps_convolution_transpose_backward "
        "mkldnn_linear_backward mkldnn_linear_backward_input mkldnn_linear_backward_weights "
        "mkldnn_rnn_layer_backward lstm_mps_backward _cudnn_rnn_backward miopen_rnn_backward "
        "_flash_attention_backward _efficient_attention_backward _cudnn_attention_backward "
        "_scaled_dot_product_flash_attention_backward _cdist_backward "
        "_scaled_dot_product_flash_attention_for_cpu_backward _sparse_mm_reduce_impl_backward "
        "_scaled_dot_product_efficient_attention_backward "
        "_scaled_dot_product_cudnn_attention_backward "
        "_scaled_dot_product_fused_attention_overrideable_backward",
        "capture is of forward passes",
    ),
    *(
        Entry(
            what="quantised layers" if name in ("quantized", "_quantized") else "packed layers",
            way=REFUSED,
            namespace=name,
            text=_FLOAT if name not in ("mkldnn_prepacked", "prepacked") else _UNOPTIMISED,
        )
        for name in (
            *("quantized", "_quantized", "onednn", "mkldnn", "fbgemm", "sparse"),
            *("mkldnn_prepacked", "prepacked"),
        )
    ),
    _entry(
        "products of compiled code",
        REFUSED,
        "_mkl_linear",
        _UNOPTIMISED,
        namespace="mkl",
    ),
    _entry("products of compiled code", REFUSED, "_mm_plus_mm", _UNOPTIMISED, namespace="inductor"),
    _entry(
        "products that wait for other machines",
        REFUSED,
        "_async_input_mm",
        _PLAIN,
        namespace="symm_mem",
    ),
    _entry(
        "deformable convolutions",
        REFUSED,
        "deform_conv2d",
        "replace deformable convolutions",
        namespace="torchvision",
    ),
)

# Namespaces of PyTorch and its libraries, whose other operations multiply no matrices.
NO_PRODUCT_NAMESPACES = _names(
    "prim prims aten mkl inductor symm_mem torchvision image video c10d _c10d_functional "
    "_c10d_functional_autograd _dtensor profiler export debug_mode_ops debugprims rngprims "
    "inductor_prims quantization static_runtime _test _native debug _export higher_order"
)

# Of ATen, operations of two or more tensors, or with a name like a product's, that are none.
NO_PRODUCT_NAMES = _names(
    """
    __irshift__ __lshift__ __rshift__ _add_relu _amp_foreach_non_finite_check_and_unscale
    _amp_update_scale _batch_norm_no_update _batch_norm_with_update
    _batch_norm_with_update_functional _chunk_cat _convert_indices_from_coo_to_csr
    _convert_indices_from_csr_to_coo _convert_weight_to_int4pack
    _convert_weight_to_int4pack_for_cpu _copy_from _copy_from_and_resize _cslt_compress
    _ctc_loss _cudnn_ctc_loss _cudnn_rnn_flatten_weight _dirichlet_grad
    _dyn_quant_pack_4bit_weight _empty_affine_quantized _empty_per_channel_affine_quantized
    _fake_quantize_learnable_per_channel_affine _fake_quantize_learnable_per_tensor_affine
    _fake_quantize_per_tensor_affine_cachemask_tensor_qparams _fft_c2c _fft_c2r _fft_r2c
    _functional_assert_async _fused_adagrad _fused_adam _fused_adamw
    _fused_moving_avg_obs_fq_helper _fused_moving_avg_obs_fq_helper_functional _fused_sgd
    _grid_sampler_2d_cpu_fallback _histogramdd_bin_edges _histogramdd_from_bin_cts
    _histogramdd_from_bin_tensors _index_put_impl _jagged_to_padded_dense_forward
    _linalg_check_errors _make_dual _make_dual_copy _make_per_channel_quantized_tensor
    _make_per_tensor_quantized_tensor _masked_scale _masked_softmax _native_batch_norm_legit
    _native_batch_norm_legit_functional _native_batch_norm_legit_no_training _nested_from_padded
    _nested_from_padded_and_nested_example _nested_from_padded_tensor _nested_get_jagged_dummy
    _nested_tensor_from_mask _nested_tensor_from_tensor_list _nested_tensor_softmax_with_shape
    _nested_view_from_buffer _nested_view_from_buffer_copy _nested_view_from_jagged
    _nested_view_from_jagged_copy _new_zeros_with_same_feature_meta _nnpack_available
    _pack_padded_sequence _padded_dense_to_jagged_forward _pdist_forward _philox_normal
    _philox_uniform _prelu_kernel _reshape_from_tensor _sparse_coo_tensor_with_dims_and_tensors
    _sparse_mask_projection _sparse_semi_structured_apply _sparse_semi_structured_tile _spdiags
    _stack _standard_gamma _standard_gamma_grad _test_functorch_fallback _thnn_fused_gru_cell
    _thnn_fused_gru_cell_backward _thnn_fused_lstm_cell _thnn_fused_lstm_cell_backward_impl
    _to_sparse _to_sparse_semi_structured _transform_bias_rescale_qkv _unsafe_index
    _unsafe_index_put _unsafe_masked_index _unsafe_masked_index_put_accumulate
    _weight_norm_interface addr as_strided_scatter batch_norm_elemt batch_norm_gather_stats
    batch_norm_gather_stats_with_counts batch_norm_update_stats bernoulli binary_cross_entropy
    binary_cross_entropy_with_logits bincount binomial block_diag bucketize cat complex copy
    copy_sparse_to_sparse copysign cudnn_batch_norm cudnn_grid_sampler cummax cummin dequantize
    diagonal_scatter dist embedding embedding_renorm empty_quantized eq
    fake_quantize_per_channel_affine_cachemask fake_quantize_per_tensor_affine_cachemask fill
    floor_divide fractional_max_pool2d fractional_max_pool3d gather gcd ge glu_jvp
    grid_sampler_2d grid_sampler_3d gt heaviside histogram huber_loss index index_add index_copy
    index_fill index_put index_reduce index_select isin lcm le linalg__powsum linalg_cross
    linalg_diagonal linalg_vector_norm linspace logspace lt masked_fill masked_scatter
    masked_select max_unpool2d max_unpool3d miopen_batch_norm miopen_ctc_loss mkldnn_max_pool2d
    mkldnn_max_pool3d mkldnn_reorder_conv2d_weight mkldnn_reorder_conv3d_weight mse_loss
    multi_margin_loss multilabel_margin_loss_forward native_batch_norm native_group_norm
    native_layer_norm ne nll_loss2d_forward nll_loss_forward normal polar put
    quantize_per_channel quantize_per_tensor quantize_per_tensor_dynamic quantized_batch_norm
    quantized_max_pool1d quantized_max_pool2d quantized_max_pool3d randint_like
    repeat_interleave resize_as resize_as_sparse rrelu_with_noise rrelu_with_noise_functional
    rsub scatter scatter_add scatter_reduce searchsorted segment_reduce select_scatter set
    slice_inverse slice_scatter smooth_l1_loss soft_margin_loss sparse_compressed_tensor
    sparse_coo_tensor sparse_mask stack take where
    """
)
FAMILIES_WITHOUT = ("_foreach_", "_test_", "special_", "fft_", "upsample_", "_upsample_", "to_")

# Higher-order operators that run a program made elsewhere, and those whose code nothing shows.
COMPILED_OPERATORS = _names("executorch_call_delegate aoti_call_delegate inductor_compiled_code")
UNSEEN_OPERATORS = _names(
    "triton_kernel_wrapper_mutation triton_kernel_wrapper_functional call_torchbind"
)

_MEANING = {
    PRODUCT: "captured",
    CONVOLUTION: "captured",
    ATTENTION: "captured",
    DISTANCE: "captured",
    OPENED: "captured",
    REFUSED: "refused",
    NOT_COUNTED: "warned",
}

_HEAD = """\
# Operations

What `capture` does with each operation that multiplies matrices, or that could hide such a product:

- *captured*: it becomes one layer or several, whose results reuse may replace;
- *refused*: capture ends with one message that names the layer, the operation and the way out;
- *warned*: it runs, a warning names it, and so do the trace's provenance (`not_counted`), every
  verdict and every page: "Not counted: ...".

Whatever else PyTorch has comes apart into these (linear layers, `matmul`, `einsum`, recurrent
layers, `torch.func`, `cond`, loops, `flex_attention`, nested tensors, exported and scripted models)
or is no product of matrices: elementwise operations and outer products, sums, norms, indexing,
pooling, interpolation, FFT, differences as in `torch.cdist` of few rows.

| what | operations | handling | why, or the way out |
|---|---|---|---|
"""

_FOOT = """
This page is written by `python -m workloads.capturing.operation_table > docs/operations.md`.
"""

# Rows for what is no operation of a name.
_OTHER_ROWS = (
    (
        "other tensors",
        "products of sparse, complex or oneDNN's",
        "refused",
        "use dense, real tensors",
    ),
    (
        "tensors without values",
        "products of meta and fake tensors",
        "refused",
        "build the model and its inputs on the CPU",
    ),
    ("integers", "products that depend on the inputs", "warned", "reuse is of floating point"),
    (
        "constants",
        "products of parameters alone, or of empty matrices",
        "left out",
        "computed once, or no work",
    ),
    (
        "operations from outside PyTorch",
        "of `torch.library` and C++ extensions",
        "captured or warned",
        "their kernels run under the hook; one is named where that shows no product and the result "
        "depends on the inputs",
    ),
    (
        "tensor subclasses",
        "their `__torch_dispatch__`",
        "captured or warned",
        "it runs under the hook; named where a product is asked for and none is seen",
    ),
    (
        "higher-order operators",
        "`cond` `while_loop` `scan` `map` `associative_scan` `flex_attention` and others",
        "captured",
        "what they call runs under the hook; of `flex_attention` all scores, masked ones too",
    ),
    (
        "Triton kernels and C++ objects",
        "`triton_kernel_wrapper_*` `call_torchbind`",
        "warned",
        "nothing shows what they multiply",
    ),
    (
        "compiled programs",
        "delegates of ExecuTorch and AOTInductor",
        "refused",
        "capture the model before it is compiled",
    ),
    ("backward passes", "products inside `forward`", "warned", "capture is of forward passes"),
    (
        "operations that a later PyTorch adds",
        "of two or more tensors, not elementwise, not in this table",
        "warned",
        "nobody has looked at them yet",
    ),
)


def markdown() -> str:
    """The table as `docs/operations.md` holds it."""
    rows = []
    for entry in ENTRIES:
        prefix = "" if entry.namespace == "aten" else f"{entry.namespace}::"
        names = " ".join(f"`{prefix}{name}`" for name in sorted(entry.names)) or f"`{prefix}*`"
        rows.append(f"| {entry.what} | {names} | {_MEANING[entry.way]} | {entry.text} |\n")
    rows += [f"| {' | '.join(row)} |\n" for row in _OTHER_ROWS]
    return _HEAD + "".join(rows) + _FOOT


if __name__ == "__main__":
    sys.stdout.write(markdown())
