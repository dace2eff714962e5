"""Where YOLOS and DETR(ViT) spend their multiply-adds, by who reads whom (chapter 22)."""

from typing import Any

from torch import nn

from course_lib.blocks.mlp import MLP
from course_lib.blocks.vit import learned_grid
from course_lib.blocks.vit_costs import attention_pairs, block_costs, vit_costs
from course_lib.detection.families.detr.detr import DETR
from course_lib.detection.families.yolos.detr_vit import ViTBody
from course_lib.detection.families.yolos.yolos import YOLOS

Size = tuple[int, int]


def tokens(model: YOLOS, picture: Size) -> dict[str, int]:
    """Return how many tokens of each kind are in the sequence of a picture (height, width): class, patch, det."""
    h, w = learned_grid(model.embedding, picture)
    return {"class": 1, "patch": h * w, "det": model.queries}


def yolos_costs(model: YOLOS, picture: Size) -> dict[str, int]:
    """Return the multiply-adds of YOLOS for one picture (height, width), by part.

    "embedding"; "layers": what blocks do with each token alone; "patch-patch", "patch-det", "det-patch", "det-det":
    both products of attention in all blocks, by who asks and who is read (det-patch: [DET] tokens read patches);
    "class": those of the class token, asking and read; "heads". Together they are what torch counts. The model may be
    on the meta device. Raises TypeError or ValueError for a picture that is none, or without a whole patch.
    """
    kinds = tokens(model, picture)
    first: Any = model.blocks[0]
    block = block_costs(sum(kinds.values()), model.width, first.feed_forward.first.out_features)
    pairs = {both: 2 * model.width * model.depth * count for both, count in attention_pairs(kinds).items()}
    return {
        "embedding": kinds["patch"] * model.embedding.projection.weight.numel(),
        "layers": model.depth * (block["projections"] + block["feed_forward"]),
        **{f"{asks}-{read}": count for (asks, read), count in pairs.items() if "class" not in (asks, read)},
        "class": sum(count for both, count in pairs.items() if "class" in both),
        "heads": model.queries * (_weights(model.class_head) + _weights(model.box_head)),
    }


def detr_vit_costs(model: DETR, picture: Size) -> dict[str, int]:
    """Return the multiply-adds of a DETR on a ViT for one picture (height, width), by part.

    "embedding", "body layers", "body attention": of the ViT, class token included; "projection": to the width of the
    neck; "encoder layers", "encoder patch-patch"; "decoder layers", "decoder det-det" and "decoder det-patch": queries
    read each other and the patches; "heads": of every decoder layer. "layers" is what is done with each token alone, in
    the decoder also the keys and values of the patches. Raises as `yolos_costs`, and TypeError for another body.
    """
    body: Any = model.body
    if not isinstance(body, ViTBody):
        raise TypeError(f"model must have a ViTBody, got {type(body).__name__}")
    vit, (h, w) = vit_costs(body.network, picture), learned_grid(body.network.embedding, picture)
    n, q, d = h * w, model.queries, model.project.out_channels
    decoder: Any = model.decoder.layers
    hidden = decoder[0].feed.first.out_features
    encoded, asked = len(model.encoder.layers), len(decoder)
    own, cell = block_costs(q, d, hidden), block_costs(n, d, hidden)
    pairs = {both: 2 * d * count for both, count in attention_pairs({"patch": n, "det": q}).items()}
    across = 2 * q * d**2 + 2 * n * d**2  # queries and `out`; keys and values of the patches
    heads = model.class_head.weight.numel() + _weights(model.box_head)
    return {
        "embedding": vit["embedding"],
        "body layers": vit["projections"] + vit["feed_forward"],
        "body attention": vit["attention"],
        "projection": n * model.project.weight.numel(),
        "encoder layers": encoded * (cell["projections"] + cell["feed_forward"]),
        "encoder patch-patch": encoded * pairs["patch", "patch"],
        "decoder layers": asked * (own["projections"] + across + own["feed_forward"]),
        "decoder det-det": asked * pairs["det", "det"],
        "decoder det-patch": asked * pairs["det", "patch"],
        "heads": asked * q * heads,
    }


def _weights(head: MLP) -> int:
    """Return the multiply-adds of a head for one token."""
    return sum(layer.weight.numel() for layer in head.layers if isinstance(layer, nn.Linear))
