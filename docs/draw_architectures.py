"""Draws the pictures of docs/architectures.md: `python docs/draw_architectures.py`.

The masks are drawn from what `model.masks` computes, so they cannot say anything else.
"""

import jax.numpy as jnp
import numpy as np
from drawing import FAINT, GAP, IMAGES, Drawing, W, column, layer

from model.masks import MaskSpec, Places, attention_mask, row_places, segment_mask

SEGMENT_COLORS = ("#3d7dc8", "#3f9a57", "#c9792b", "#8c5fb0")
UNSEEN = "#eef1f4"


def decoder_only() -> None:
    d = Drawing(690, 1000)
    x = 60
    tops = column(
        d,
        x,
        16,
        [
            ("“def add(a, b):”", "text"),
            ("tokenizer\n(SentencePiece BPE)", "data"),
            ("<s> def ▁add ( a , ▁b ):  →  ids", "data"),
            ("embedding: one row of the table an id", "data"),
        ],
    )
    y = layer(
        d,
        x,
        tops[-1] + GAP,
        [
            ("self-attention, causal\nqueries and keys turned (RoPE)", "attention"),
            ("feed-forward (SwiGLU)", "mlp"),
        ],
        "× N",
    )
    d.arrow((x + W / 2, y - GAP), (x + W / 2, y + GAP - 2))
    tops = column(
        d,
        x,
        y + GAP - 2,
        [
            ("final norm", "norm"),
            ("head: product with the table → logits", "head"),
            ("softmax → probabilities of the next token", "head"),
            ("token selection: greedy, top-k, top-p", "head"),
            ("detokenizer → “ return a + b”", "text"),
        ],
    )
    chosen = tops[3] + 18
    d.arrow((x + W, chosen), (430, chosen), (430, 154), (x + W + 4, 154), dashed=True)
    d.label(440, 420, "generation:", size=13, color=FAINT, bold=True)
    for number, line in enumerate(
        (
            "the chosen token is appended and",
            "goes in again; keys and values of",
            "earlier tokens are kept (the cache),",
            "until </s> or enough tokens",
        )
    ):
        d.label(440, 440 + 17 * number, line, size=12, color=FAINT)
    d.label(440, 560, "training:", size=13, color=FAINT, bold=True)
    for number, line in enumerate(
        (
            "no loop: the logits of every place",
            "at once, each against the token",
            "that really comes next",
        )
    ):
        d.label(440, 580 + 17 * number, line, size=12, color=FAINT)
    d.height = int(tops[-1] + 16)
    d.save("decoder_only.svg", "A decoder-only transformer, from text to text")


def encoder_only() -> None:
    d = Drawing(690, 1000)
    x = 60
    tops = column(
        d,
        x,
        16,
        [
            ("“import <mask> as np”", "text"),
            ("tokenizer", "data"),
            ("<s> import <mask> ▁as ▁np </s>  →  ids", "data"),
            ("embedding + position table\n(+ token type) → norm", "data"),
        ],
    )
    y = tops[-1] + GAP
    top = y
    y += 30
    d.arrow((x + W / 2, top - GAP), (x + W / 2, y))
    for label, kind in (
        ("self-attention, both ways", "attention"),
        ("feed-forward (GELU)", "mlp"),
    ):
        begin = y - GAP / 2
        tops = column(d, x, y, [(label, kind)])
        plus = tops[-1] + 20
        d.arrow((x + W / 2, tops[-1]), (x + W / 2, plus - 10))
        d.plus(x + W / 2, plus)
        d.arrow((x + W / 2, begin), (x - 18, begin), (x - 18, plus), (x + W / 2 - 10, plus))
        d.arrow((x + W / 2, plus + 10), (x + W / 2, plus + 10 + GAP))
        tops = column(d, x, plus + 10 + GAP, [("norm", "norm")])
        d.arrow((x + W / 2, tops[-1]), (x + W / 2, tops[-1] + GAP))
        y = tops[-1] + GAP
    d.frame(x - 34, top, W + 60, y - top, "× N")
    d.arrow((x + W / 2, y), (x + W / 2, y + GAP))
    tops = column(
        d,
        x,
        y + GAP,
        [
            ("dense → GELU → norm", "head"),
            ("product with the table + bias → logits", "head"),
            ("softmax at the masked place", "head"),
            ("numpy, pandas, …: candidates, likeliest first", "text"),
        ],
    )
    d.label(400, 120, "training:", size=13, color=FAINT, bold=True)
    for number, line in enumerate(
        (
            "15% of the tokens are chosen,",
            "anew in every epoch; of those",
            "80% become <mask>, 10% another",
            "token, 10% stay as they are; the",
            "loss counts the chosen ones only",
        )
    ):
        d.label(400, 140 + 17 * number, line, size=12, color=FAINT)
    d.label(400, tops[0] + 20, "use:", size=13, color=FAINT, bold=True)
    for number, line in enumerate(
        (
            "fill in masks; or leave the head off",
            "and pool the activations: sentence",
            "embeddings, classification, NER",
        )
    ):
        d.label(400, tops[0] + 40 + 17 * number, line, size=12, color=FAINT)
    d.height = int(tops[-1] + 16)
    d.save("encoder_only.svg", "An encoder-only transformer with a masked-token head")


def encoder_decoder() -> None:
    d = Drawing(880, 1200)
    left, right = 60, 470
    tops = column(
        d,
        left,
        16,
        [
            ("“def <extra_id_0>(a, b): …” </s>", "text"),
            ("tokenizer → ids", "data"),
            ("embedding (table shared)", "data"),
        ],
    )
    end = layer(
        d,
        left,
        tops[-1] + GAP,
        [
            ("self-attention, both ways\n+ relative position bias", "attention"),
            ("feed-forward (GEGLU)", "mlp"),
        ],
        "encoder × N",
    )
    d.arrow((left + W / 2, end - GAP), (left + W / 2, end + GAP - 2))
    tops = column(
        d, left, end + GAP - 2, [("final norm", "norm"), ("memory: one vector a place", "memory")]
    )
    memory = (tops[1] + tops[2]) / 2
    tops = column(
        d,
        right,
        16,
        [
            ("<s> <extra_id_0> add …  so far", "text"),
            ("ids", "data"),
            ("embedding (table shared)", "data"),
        ],
    )
    top_of_input = 16 + 18
    begin = tops[-1] + GAP
    end = layer(
        d,
        right,
        begin,
        [
            ("self-attention, causal\n+ relative position bias", "attention"),
            ("cross-attention: queries from here,\nkeys and values from the memory", "memory"),
            ("feed-forward (GEGLU)", "mlp"),
        ],
        "decoder × N",
    )
    cross = begin + 30 + 36 + GAP + 52 + 20 + 10 + GAP + 36 + GAP + 26
    d.arrow((left + W, memory), (395, memory), (395, cross), (right, cross))
    d.arrow((right + W / 2, end - GAP), (right + W / 2, end + GAP - 2))
    tops = column(
        d,
        right,
        end + GAP - 2,
        [
            ("final norm → head → logits", "head"),
            ("softmax → token selection", "head"),
            ("detokenizer → text", "text"),
        ],
    )
    chosen = tops[1] + 18
    d.arrow(
        (right + W, chosen),
        (800, chosen),
        (800, top_of_input),
        (right + W + 4, top_of_input),
        dashed=True,
    )
    d.label(808, 340, "append,", size=12, color=FAINT)
    d.label(808, 357, "until </s>", size=12, color=FAINT)
    for number, line in enumerate(
        (
            "The encoder runs once. The decoder begins",
            "with <s> and writes a token at a time; its",
            "own keys and values and the memory's are",
            "kept. In training the whole target goes in",
            "at once, shifted by one place.",
        )
    ):
        d.label(left, tops[0] - 34 + 17 * number, line, size=12, color=FAINT)
    d.height = int(tops[-1] + 16)
    d.save("encoder_decoder.svg", "An encoder-decoder transformer and its loop")


CELL = 13


def mask_panel(
    d: Drawing, x: float, y: float, title: str, mask_LM: np.ndarray, segments_L: np.ndarray
) -> None:
    """Rows are queries, columns are keys; a seen key has the colour of the query's document."""
    d.label(x, y - 10, title, size=13, bold=True)
    L, M = mask_LM.shape
    for row in range(L):
        for key in range(M):
            color = UNSEEN
            if mask_LM[row, key]:
                color = SEGMENT_COLORS[(int(segments_L[row]) - 1) % len(SEGMENT_COLORS)]
            d.parts.append(
                f'<rect x="{x + key * CELL}" y="{y + row * CELL}" width="{CELL - 1}" '
                f'height="{CELL - 1}" fill="{color}"/>'
            )


def masks() -> None:
    segments = np.array([[1] * 5 + [2] * 4 + [3] * 2 + [0]])
    one = np.ones((1, 12), np.int32)
    prefix = np.array([[1, 1, 1, 0, 0, 1, 1, 0, 0, 1, 0, 0]])
    memory = np.array([[1] * 6 + [2] * 4 + [3] * 5 + [0]])

    def mask(spec: MaskSpec, places: Places) -> np.ndarray:
        return np.asarray(attention_mask(spec, places))[0]

    packed, whole = row_places(jnp.asarray(segments)), row_places(jnp.asarray(one))
    causal, both = MaskSpec(causal=True), MaskSpec(causal=False)
    panels = [
        ("causal: one document", mask(causal, whole), one),
        ("causal: three documents, padding", mask(causal, packed), segments),
        (
            "prefix LM",
            mask(causal, row_places(jnp.asarray(segments), jnp.asarray(prefix))),
            segments,
        ),
        ("causal, window of 4", mask(MaskSpec(causal=True, window=4), whole), one),
        ("both ways: one document", mask(both, whole), one),
        ("both ways: three documents, padding", mask(both, packed), segments),
        ("both ways, window of 3", mask(MaskSpec(causal=False, window=3), whole), one),
        (
            "cross-attention: decoder to encoder",
            np.asarray(segment_mask(jnp.asarray(segments), jnp.asarray(memory)))[0],
            segments,
        ),
    ]
    d = Drawing(1040, 450)
    for number, (title, mask_LM, of) in enumerate(panels):
        x, y = 20 + 258 * (number % 4), 40 + 206 * (number // 4)
        mask_panel(d, x, y, title, mask_LM, of[0])
    d.label(
        20,
        440,
        "rows: queries, columns: keys; coloured where the query sees the key, a colour a document",
        size=12,
        color=FAINT,
    )
    d.save("attention_masks.svg", "Attention masks of every architecture and objective")


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    decoder_only()
    encoder_only()
    encoder_decoder()
    masks()
