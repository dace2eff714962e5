"""What a vision transformer costs, counted by hand: pairs of tokens and multiply-adds (chapters 21 and 22).

A multiply-add is a multiplication with its addition; what papers call FLOPs of these networks are multiply-adds.
Counted are the products of convolutions, of linear layers and of attention; not biases, norms, softmax and positions.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

from course_lib.blocks.vit import ViT, learned_grid
from course_lib.upsampling.grids import check_length


def attention_pairs(tokens: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """Return how many pairs of tokens one attention compares, by who asks and who is read.

    tokens: how many there are of each kind, such as {"patch": 4150, "det": 100}; the result then has the four keys
    ("patch", "patch"), ("patch", "det"), which is patches that read [DET], and so on. Raises TypeError or ValueError
    for a number that is not whole and >= 0.
    """
    for kind, count in tokens.items():
        check_length(kind, count, 0)
    return {(asks, read): tokens[asks] * tokens[read] for asks, read in product(tokens, repeat=2)}


def block_costs(tokens: int, width: int, hidden: int | None = None) -> dict[str, int]:
    """Return the multiply-adds of one `Block` for a picture of `tokens` = N tokens, by part; width: D.

    "projections": 4 N D^2, of queries, keys, values and `out`; "attention": 2 N^2 D, queries with keys and weights with
    values; "feed_forward": 2 N D hidden, 8 N D^2 where hidden is None. More heads cost no more. Raises TypeError or
    ValueError for numbers that are not whole and >= 1.
    """
    n, d = check_length("tokens", tokens), check_length("width", width)
    h = 4 * d if hidden is None else check_length("hidden", hidden)
    return {"projections": 4 * n * d**2, "attention": 2 * n**2 * d, "feed_forward": 2 * n * d * h}


def vit_costs(network: ViT, picture: tuple[int, int]) -> dict[str, int]:
    """Return the multiply-adds of a ViT for one picture (height, width), by part.

    "embedding", "projections", "attention" and "feed_forward" of all blocks, "head". The network may be on the meta
    device. Raises TypeError or ValueError for a picture that is none, or without a whole patch.
    """
    h, w = learned_grid(network.embedding, picture)
    first: Any = network.blocks[0]
    block = block_costs(network.extras + h * w, network.width, first.feed_forward.first.out_features)
    heads = 1 if network.distillation_head is None else 2
    return {
        "embedding": h * w * network.embedding.projection.weight.numel(),
        **{part: len(network.blocks) * count for part, count in block.items()},
        "head": heads * network.width * (network.classes or 0),
    }
