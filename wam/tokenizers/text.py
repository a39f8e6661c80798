"""Text encoders: sentences become feature tokens, by a tiny encoder learned with the model or a frozen pretrained one."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from wam.contracts import expected
from wam.tokenizers.frozen import Frozen, not_on_disk, read_provenance, refuse_missing
from wam.tokenizers.words import UNKNOWN, pad_ids, word_ids


class TextEncoder(nn.Module, abc.ABC):
    """Sentences to features. width: D of the features. provenance: {source, revision, random}."""

    width: int
    provenance: dict[str, Any]

    def forward(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Features (B, L, D) float, zero past a sentence's end, and their mask (B, L) bool, True where real.

        L is the longest of the batch; every sentence, the empty one too, has at least one token. Equal sentences of a
        batch are encoded once.
        """
        if isinstance(sentences, str) or not sentences:
            raise expected(
                "a sequence of sentences", got=repr(sentences), do="give one sentence per window of the batch"
            )
        distinct = list(dict.fromkeys(sentences))
        features, mask = self.encode(distinct)
        if len(distinct) == len(sentences):
            return features, mask
        where = {sentence: row for row, sentence in enumerate(distinct)}
        rows = torch.tensor([where[sentence] for sentence in sentences], device=features.device)
        return features[rows], mask[rows]

    @abc.abstractmethod
    def encode(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The features and mask of distinct sentences."""


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Which text encoder. kind ``small``: width, depth, heads, vocabulary, max_words; ``pretrained``: the rest.

    name: a folder or a hub name. subfolder: where the encoder lies in it (``text_encoder`` in diffusers pipelines,
    whose tokenizer is then read from ``tokenizer``). max_tokens: longest sentence of a T5 or UMT5. padded: a
    sentence is encoded in the midst of its padding up to there, which it attends to, as for LTX-Video.
    """

    kind: Literal["small", "pretrained"] = "small"
    width: int = 128
    depth: int = 1
    heads: int = 4
    vocabulary: int = 2048
    max_words: int = 16
    name: str | None = None
    revision: str | None = None
    subfolder: str = ""
    max_tokens: int = 64
    padded: bool = False


def make_text_encoder(config: TextConfig) -> TextEncoder:
    """The text encoder that the config names."""
    if config.kind == "small":
        return SmallTextEncoder(
            width=config.width,
            depth=config.depth,
            heads=config.heads,
            vocabulary=config.vocabulary,
            max_words=config.max_words,
        )
    if not config.name:
        raise expected("a name for the pretrained text encoder", got="none", do="set `name` to a folder or a hub name")
    with torch.random.fork_rng(devices=[]):  # weights from a file must not shift the draws of those that learn
        return PretrainedTextEncoder(
            config.name,
            config.revision,
            subfolder=config.subfolder,
            max_tokens=config.max_tokens,
            padded=config.padded,
        )


# ---------------------------------------------------------------- learned with the model


class SmallTextEncoder(TextEncoder):
    """Hashed words with learned embeddings and positions, then `depth` small transformer layers.

    Trained from scratch with the model. Words are lower-cased runs of letters and digits. The empty sentence is one
    learned token. Sentences past `max_words` are cut, with one warning. Words met in training mode are kept in mind; out of
    it, one that was never met is the unknown word, whose token training teaches by putting it in the place of others.
    """

    met: Tensor

    def __init__(
        self, *, width: int = 128, depth: int = 1, heads: int = 4, vocabulary: int = 2048, max_words: int = 16
    ) -> None:
        super().__init__()
        if width % heads or vocabulary < 4 or max_words < 1:
            raise expected(
                "width a multiple of heads, vocabulary of at least 4 and max_words of at least 1",
                got=f"width {width}, heads {heads}, vocabulary {vocabulary}, max_words {max_words}",
                do="change the text encoder's settings",
            )
        self.width, self.vocabulary, self.max_words = width, vocabulary, max_words
        self.provenance = {"source": "learned with the model", "revision": None, "random": False}
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(max_words, width)
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("met", torch.zeros(vocabulary, dtype=torch.bool))
        nn.init.normal_(self.embedding.weight, std=0.5)
        nn.init.normal_(self.position.weight, std=0.1)

    def encode(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        ids = [word_ids(sentence, self.vocabulary, self.max_words) for sentence in sentences]
        padded = pad_ids(ids, max(len(words) for words in ids))
        ids_BL2 = torch.tensor(padded, device=self.embedding.weight.device)
        if self.training and self.embedding.weight.requires_grad:  # a word is met where training can teach it
            self.met[ids_BL2.flatten()] = True
        elif self.met.any():
            ids_BL2 = self.known(ids_BL2)
        return self.embed(ids_BL2)

    def known(self, ids_BL2: Tensor) -> Tensor:
        """The ids with words that training never met as the unknown word."""
        strange = (ids_BL2 > UNKNOWN) & ~self.met[ids_BL2]
        return ids_BL2.masked_fill(strange.any(-1, keepdim=True), UNKNOWN)

    def embed(self, ids_BL2: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, L, D) and mask (B, L) of two ids a word, 0 for padding."""
        mask_BL = ids_BL2[..., 0] != 0
        h_BLD = self.embedding(ids_BL2).sum(dim=2) + self.position.weight[: ids_BL2.shape[1]]
        for layer in self.layers:
            h_BLD = layer(h_BLD, mask_BL)
        return self.norm(h_BLD) * mask_BL[..., None], mask_BL


class _Layer(nn.Module):
    """One pre-norm transformer layer over (B, L, D) with a key mask (B, L)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, h_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        q, k, v = rearrange(
            self.qkv(self.norm_attention(h_BLD)), "B L (three N E) -> three B N L E", three=3, N=self.heads
        )
        attended = scaled_dot_product_attention(q, k, v, attn_mask=mask_BL[:, None, None, :])
        h_BLD = h_BLD + self.out(rearrange(attended, "B N L E -> B L (N E)"))
        return h_BLD + self.mlp(self.norm_mlp(h_BLD))


# ---------------------------------------------------------------- frozen and pretrained

# transformers' model_type -> class of the text half
_CLASSES = {
    "t5": "T5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "clip": "CLIPTextModel",
    "clip_text_model": "CLIPTextModel",
    "siglip": "SiglipTextModel",
    "siglip_text_model": "SiglipTextModel",
    "siglip2": "Siglip2TextModel",
    "siglip2_text_model": "Siglip2TextModel",
}


class PretrainedTextEncoder(Frozen, TextEncoder):
    """A frozen T5, UMT5, CLIP or SigLIP text encoder of transformers, from a folder or a hub name.

    Features of sentences seen are kept. Only safetensors are read, and weights that the files lack are an error, never
    filled at random. `from_config` gives a random network for tests, which its provenance says.
    """

    def __init__(
        self,
        name_or_path: str,
        revision: str | None = None,
        *,
        subfolder: str = "",
        max_tokens: int = 64,
        padded: bool = False,
    ) -> None:
        super().__init__()
        from safetensors import SafetensorError
        from transformers import AutoConfig, AutoTokenizer

        name_or_path = str(Path(name_or_path).expanduser()) if name_or_path.startswith("~") else name_or_path
        source = {"revision": revision, "subfolder": subfolder}
        tokenizer_folder = "tokenizer" if subfolder == "text_encoder" else subfolder
        try:
            config = AutoConfig.from_pretrained(name_or_path, **source)
            network, report = _network_class(config.model_type).from_pretrained(
                name_or_path, use_safetensors=True, output_loading_info=True, dtype=torch.float32, **source
            )
            tokenizer = AutoTokenizer.from_pretrained(name_or_path, revision=revision, subfolder=tokenizer_folder)
        except (OSError, ValueError, ImportError, SafetensorError, RuntimeError) as error:
            raise not_on_disk("the text encoder", name_or_path, revision, error) from error
        refuse_missing("the text encoder", name_or_path, report["missing_keys"])
        self._set_up(network, tokenizer, max_tokens, padded)
        self.provenance = read_provenance(name_or_path, revision or getattr(config, "_commit_hash", None))

    @classmethod
    def from_config(
        cls, config: Any, tokenizer: Any, *, max_tokens: int = 64, padded: bool = False
    ) -> PretrainedTextEncoder:
        """A network with random weights of a transformers config; its provenance says random."""
        encoder = cls.__new__(cls)
        nn.Module.__init__(encoder)
        encoder._set_up(_network_class(config.model_type)(config), tokenizer, max_tokens, padded)
        encoder.provenance = {"source": f"{config.model_type} from its config", "revision": None, "random": True}
        return encoder

    def _set_up(self, network: nn.Module, tokenizer: Any, max_tokens: int, padded: bool) -> None:
        self._hold(network)
        config: Any = network.config
        self.tokenizer, self.width = tokenizer, int(config.hidden_size)
        # SigLIP is trained on sentences padded to its full length, with the padding attended to
        self.pads_to_full = padded or str(config.model_type).startswith("siglip")
        self.max_tokens = getattr(config, "max_position_embeddings", None) or max_tokens
        self._features: dict[str, Tensor] = {}

    def save_pretrained(self, folder: Path) -> None:
        super().save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _apply(self, fn: Any, recurse: bool = True) -> PretrainedTextEncoder:
        self._features.clear()
        super()._apply(fn, recurse)
        return self

    def encode(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        if len(self._features) > 65536:
            self._features.clear()
        if unseen := [sentence for sentence in sentences if sentence not in self._features]:
            self._features.update(zip(unseen, self._compute(unseen), strict=True))
        rows = [self._features[sentence] for sentence in sentences]
        features = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows], device=features.device)
        return features, torch.arange(features.shape[1], device=features.device) < lengths[:, None]

    @torch.no_grad()
    def _compute(self, sentences: Sequence[str]) -> list[Tensor]:
        """The features (L, D) of each sentence, without padding."""
        tokens = self.tokenizer(
            list(sentences),
            padding="max_length" if self.pads_to_full else True,
            truncation=True,
            max_length=self.max_tokens,
            return_attention_mask=True,
        )
        ids = torch.tensor(tokens["input_ids"], dtype=torch.long, device=self.device)
        mask = torch.tensor(tokens["attention_mask"], dtype=torch.bool, device=self.device)
        if ids.shape[1] == 0:  # only sentences without a token: let the padding token stand for them
            ids = torch.full((len(sentences), 1), self.tokenizer.pad_token_id or 0, device=self.device)
            mask = torch.zeros_like(ids, dtype=torch.bool)
        mask[~mask.any(dim=1), 0] = True
        given = {} if self.pads_to_full else {"attention_mask": mask.long()}
        features = self.network(input_ids=ids, **given).last_hidden_state.float()
        return [row[keep] for row, keep in zip(features, mask, strict=True)]


def _network_class(model_type: str) -> Any:
    import transformers

    if model_type not in _CLASSES:
        raise expected(
            f"a text encoder of type {', '.join(sorted(_CLASSES))}",
            got=repr(model_type),
            do="name a model of these types",
        )
    return getattr(transformers, _CLASSES[model_type])
