"""Techniques of transformers that are not built here yet: what each takes off, and its source."""

from simulator.policies.dropped_tokens import DroppedTokens
from simulator.policies.technique import Technique, register

_NOT_BUILT = "not built here yet; tokens that a list names are dropped by dropped_tokens"

register(
    Technique(
        name="dropped_tokens",
        title="token pruning by a list",
        axis="tokens",
        word="skip",
        grain="token",
        rule="Tokens that a list names are gone from a layer on; later products have fewer rows.",
        evidence="nothing: static",
        source="the plainest form of PoWER-BERT, Goyal et al., ICML 2020",
        policy=DroppedTokens,
    )
)

# Each the values of `_FIELDS`.
_ENTRIES = (
    ("reformer", "LSH attention", "depth", "skip", "block",
     "Tokens are sorted by hashed bucket and cut into chunks; each attends to its own chunk and "
     "the one before. Pays only where 2 x rounds x chunk < tokens.",
     "signatures of queries", "Kitaev et al., Reformer, ICLR 2020", "shared queries and keys"),
    ("clustered_attention", "clustered attention", "rows", "share", "query",
     "Queries are clustered; one attends for all of its cluster, and its values are shared.",
     "signatures of queries", "Vyas et al., Fast transformers with clustered attention, "
     "NeurIPS 2020", ""),
    ("elsa", "ELSA", "depth", "skip", "pair",
     "Pairs whose approximate score from sign hashes is below a threshold are not computed.",
     "sign hashes of queries and keys", "Ham et al., ELSA, ISCA 2021", "a threshold"),
    ("memory_compressed_attention", "memory-compressed attention", "columns", "skip", "key",
     "Keys and values pass a convolution of stride 3, so that scores have a third of the columns.",
     "nothing: static", "Liu et al., Generating Wikipedia, ICLR 2018", "the network"),
    ("power_bert", "PoWER-BERT", "tokens", "skip", "token",
     "Each block keeps the tokens with the largest sums of attention, a learned number of them.",
     "column sums of attention", "Goyal et al., PoWER-BERT, ICML 2020", "lengths, the network"),
    ("ltp", "learned token pruning", "tokens", "skip", "token",
     "Tokens whose mean attention is below a block's threshold are dropped.",
     "column sums of attention", "Kim et al., LTP, KDD 2022", "thresholds"),
    ("spatten", "SpAtten", "tokens", "skip", "token and head",
     "Attention accumulates over blocks; the tokens and heads with the least are dropped for good.",
     "accumulated column sums", "Wang et al., SpAtten, HPCA 2021", "the network, to fine-tune"),
    ("length_adaptive", "length-adaptive transformer", "tokens", "skip", "token",
     "Lengths of blocks are drawn in training and found by evolution for a budget.",
     "column sums of attention", "Kim and Cho, ACL 2021", "the network"),
    ("tr_bert", "TR-BERT", "tokens", "skip", "token",
     "A small policy network chooses tokens at two blocks; others keep their value to the end.",
     "a policy network", "Ye et al., TR-BERT, NAACL 2021", "the policy, by reward"),
    ("funnel", "Funnel-Transformer", "tokens", "share", "token",
     "Pairs of tokens are pooled between thirds of the layers.",
     "nothing: static", "Dai et al., Funnel-Transformer, NeurIPS 2020", "the network"),
    ("dynamic_vit", "DynamicViT", "tokens", "skip", "token",
     "An MLP on tokens keeps a fixed share before three blocks.",
     "a small network", "Rao et al., DynamicViT, NeurIPS 2021", "the selectors and the network"),
    ("evit", "EViT", "tokens", "skip", "token",
     "Tokens that the class token attends to least are dropped, or fused into one.",
     "attention of the class token", "Liang et al., EViT, ICLR 2022", "the network, to fine-tune"),
    ("heat_vit", "HeatViT and SPViT", "tokens", "skip", "token",
     "Per-head selectors keep tokens; the rest becomes one package token.",
     "a small network", "Dong et al., HeatViT, HPCA 2023", "the selectors and the network"),
    ("tome", "token merging", "tokens", "share", "token",
     "In each block the r most similar pairs of tokens are merged, by keys' cosines.",
     "cosines of keys", "Bolya et al., Token merging, ICLR 2023", ""),
    ("adaptiv", "AdapTiV", "tokens", "share", "token",
     "A token merges with its upper or left neighbour where enough signs are equal.",
     "signs of neighbours", "Yoo et al., AdapTiV, MICRO 2024", ""),
    ("atom", "AToM", "tokens", "share", "token",
     "Tokens are merged before a block and copied after it, for dense prediction.",
     "cosines of tokens", "AToM; see ToMe", ""),
    ("cmc", "CMC", "rows", "share", "token",
     "Each token of a group of frames takes the results of the most similar token of its "
     "reference frame.", "block search over frames", "Song et al., CMC, ASPLOS 2024", ""),
    ("focus_pruning", "semantic concentration of Focus", "tokens", "skip", "token",
     "Image tokens that the text attends to least are dropped in some layers.",
     "attention of the text", "Focus, HPCA 2026", ""),
    ("run_length_tokens", "run-length tokenisation", "tokens", "skip", "patch",
     "Patches that did not change since the frame before are dropped before the network.",
     "differences of pixels", "Choudhury et al., RLT, NeurIPS 2024", ""),
)  # fmt: skip

_FIELDS = (
    "name", "title", "axis", "word", "grain", "rule", "evidence", "source", "trained",
)  # fmt: skip

for _entry in _ENTRIES:
    register(Technique(**dict(zip(_FIELDS, _entry, strict=True)), how=_NOT_BUILT))  # type: ignore[arg-type]
