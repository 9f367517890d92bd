"""The operators of torch that classifiers are made of; others have no place in a model file.

Some operators of aten trust what they are given: files to map, raw strides, sparse indices that
nobody looks at. Those here check their arguments. Names of in-place twins ("relu_") are not listed,
nor are the variants that write into an argument.
"""

from __future__ import annotations

import re

import torch

_LAYERS = """
linear bilinear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution
batch_norm instance_norm group_norm layer_norm rms_norm native_batch_norm native_group_norm
native_layer_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _fused_rms_norm
_weight_norm norm_except_dim renorm
embedding embedding_bag _embedding_bag one_hot
scaled_dot_product_attention _scaled_dot_product_attention_math
_scaled_dot_product_flash_attention_for_cpu _native_multi_head_attention
_transformer_encoder_layer_fwd
lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell
dropout feature_dropout alpha_dropout feature_alpha_dropout native_dropout
"""
_POOLING_AND_RESIZING = """
max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices
avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d _adaptive_avg_pool2d
_adaptive_avg_pool3d max_unpool2d
upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
_upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d
upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
grid_sampler grid_sampler_2d grid_sampler_3d affine_grid_generator
pad constant_pad_nd _pad_circular reflection_pad1d reflection_pad2d reflection_pad3d
replication_pad1d replication_pad2d replication_pad3d
pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle im2col col2im unfold
"""
_ACTIVATIONS = """
relu relu6 prelu _prelu_kernel leaky_relu rrelu elu selu celu gelu silu mish glu softplus softshrink
hardshrink hardtanh hardswish hardsigmoid log_sigmoid log_sigmoid_forward threshold sigmoid tanh
softmax _softmax log_softmax _log_softmax _safe_softmax logit
"""
_SHAPES = """
view _unsafe_view reshape _reshape_copy view_as reshape_as expand expand_as broadcast_to
broadcast_tensors permute transpose t numpy_T mT swapaxes swapdims movedim moveaxis squeeze
unsqueeze flatten unflatten ravel flip fliplr flipud roll rot90 repeat tile repeat_interleave cat
concat concatenate stack hstack vstack dstack column_stack row_stack chunk split split_with_sizes
tensor_split hsplit vsplit dsplit unsafe_chunk unsafe_split unsafe_split_with_sizes unbind select
slice narrow diagonal diag diag_embed linalg_diagonal block_diag tril triu meshgrid cartesian_prod
atleast_1d atleast_2d atleast_3d as_strided select_scatter slice_scatter diagonal_scatter clone
contiguous alias detach lift_fresh lift_fresh_copy copy to _to_copy type_as view_as_real
view_as_complex real imag conj resolve_conj resolve_neg _conj
"""
_INDEXING = """
index _unsafe_index index_put _unsafe_index_put index_select index_add index_copy index_fill gather
scatter scatter_add scatter_reduce masked_fill masked_scatter masked_select where take
take_along_dim nonzero nonzero_numpy argwhere isin searchsorted bucketize
"""
_REDUCTIONS = """
sum mean std var std_mean var_mean amax amin aminmax max min prod logsumexp all any argmax argmin
argsort sort msort topk kthvalue median nanmedian mode nansum nanmean quantile nanquantile
cumsum cumprod cummax cummin logcumsumexp diff count_nonzero trace norm dist linalg_norm
linalg_vector_norm linalg_matrix_norm cosine_similarity pairwise_distance cdist _cdist_forward
_euclidean_dist pdist _pdist_forward cov corrcoef histc bincount
"""
_ELEMENTS = """
add sub rsub mul div true_divide floor_divide divide multiply subtract remainder fmod pow
float_power neg negative positive abs absolute sign sgn sqrt rsqrt square reciprocal exp exp2 expm1
log log2 log10 log1p sin cos tan asin acos atan atan2 arctan2 sinh cosh asinh acosh atanh sinc erf
erfc erfinv special_erfinv special_expit lgamma digamma floor ceil round trunc fix frac clamp
clamp_min clamp_max clip lerp addcmul addcdiv hypot maximum minimum fmax fmin nan_to_num copysign
heaviside logaddexp logaddexp2 xlogy special_xlogy deg2rad rad2deg ldexp angle complex polar
gt ge lt le eq ne greater greater_equal less less_equal not_equal logical_and logical_or logical_xor
logical_not bitwise_and bitwise_or bitwise_xor bitwise_not __and__ __or__ __xor__ __iand__ __ior__
__ixor__ isnan isinf isfinite isneginf isposinf
fill zero
"""
_ALGEBRA = """
matmul mm bmm addmm baddbmm addbmm mv addmv dot vdot inner outer ger addr einsum tensordot kron
cross linalg_cross linalg_multi_dot linalg_inv linalg_inv_ex inverse linalg_det _linalg_det
linalg_slogdet _linalg_slogdet linalg_svd _linalg_svd linalg_svdvals linalg_eigh _linalg_eigh
linalg_eigvalsh linalg_qr linalg_cholesky linalg_cholesky_ex linalg_solve linalg_solve_ex
_linalg_solve_ex linalg_matrix_power linalg_matrix_exp matrix_exp
fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn
fft_rfftn fft_irfftn fft_fftshift fft_ifftshift
"""
_NEW = """
arange linspace logspace full full_like zeros zeros_like ones ones_like eye scalar_tensor
new_zeros new_ones new_full new_empty empty empty_like empty_strided tril_indices triu_indices
hann_window rand rand_like randn randn_like randint randperm bernoulli normal uniform multinomial
"""
_SIZES = """
sym_size sym_numel sym_stride sym_storage_offset sym_is_contiguous item _local_scalar_dense
_assert_async _assert_scalar _assert_tensor_metadata sym_constrain_range
sym_constrain_range_for_size
"""
_MADE = frozenset(f"{_NEW} {_SIZES}".split())
_ATEN = frozenset(
    " ".join(
        [
            *(_LAYERS, _POOLING_AND_RESIZING, _ACTIVATIONS, _SHAPES, _INDEXING, _REDUCTIONS),
            *(_ELEMENTS, _ALGEBRA, _NEW, _SIZES),
        ]
    ).split()
)
_REINTERPRETING = ("view.dtype",)  # the same bytes as other numbers
_AROUND_GRAPHS = ("wrap_with_set_grad_enabled", "wrap_with_autocast", "cond", "map_impl")
_ARITHMETIC = re.compile(
    r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_)"
    r"|math\.(floor|ceil|trunc|sqrt)|torch\.sym_(int|float|max|min|not|ite|sum|sqrt)"
)


def without_shortcuts(graph_module: torch.fx.GraphModule) -> None:
    """Puts safe functions in the place of operators that do not check what they are given."""
    for module in graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                if node.target is torch.ops.aten._weight_norm.default:
                    node.target = _weight_norm


def _weight_norm(v: torch.Tensor, g: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """The same operator; torch's own reads lengths of `g` that it may not have."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def is_known(target: str) -> bool:
    """Whether a classifier may call this, by the name that exported programs have for it."""
    if _ARITHMETIC.fullmatch(target):
        return True
    if target.startswith("torch.ops.higher_order."):
        return target.removeprefix("torch.ops.higher_order.") in _AROUND_GRAPHS
    found = re.fullmatch(r"torch\.ops\.aten\.((\w+?)_?)\.(\w+)", target, re.ASCII)
    if found is None or not {found[1], found[2]} & _ATEN:
        return False
    if f"{found[1]}.{found[3]}" in _REINTERPRETING:
        return False
    operator = getattr(getattr(torch.ops.aten, found[1], None), found[3], None)
    if not isinstance(operator, torch._ops.OpOverload):
        return False
    arguments = operator._schema.arguments
    of_tensors = any("Tensor" in str(each.type) for each in arguments)  # else of plain numbers
    made = {found[1], found[2]} & _MADE
    return bool(of_tensors or made) and not any(each.is_out for each in arguments)
