"""The network: stems, the joint transformer and heads, wired by the visibility table. No noise is drawn here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from wam.contracts import Batch, expected
from wam.geometry.cameras import Cameras
from wam.model.action_tokens import NativeTokens
from wam.model.backbones.bases import borrowed
from wam.model.backbones.ends import Passage, PretrainedEnds
from wam.model.backbones.interface import Prompt
from wam.model.backbones.load import AnyBackbone
from wam.model.backbones.streams import make_pretrained, settle
from wam.model.backbones.vlm.scene import SceneEnds
from wam.model.config import ModelConfig
from wam.model.context import Context
from wam.model.frames import VideoEnds
from wam.model.joint import JointTransformer, StreamInput
from wam.model.latents import FrameCoder
from wam.model.occupancy import Drawn, OccupancyHead, Voxels
from wam.model.parts import make_ends, make_head, make_stem, make_summary, positions_of, tokens_of, unknown_vectors
from wam.model.prefix import PrefixStem, padded
from wam.model.rope import chunk_positions, grid_positions, rotary_table
from wam.model.stems import ClockEmbedding, TextStem
from wam.model.visibility import table_from
from wam.tokenizers.text import TextEncoder
from wam.tokenizers.video import VideoTokenizer


class JointNetwork(FrameCoder):
    """From streams at their clocks to predictions. `condition_width` W is the width of every adaLN condition."""

    observation_views: Tensor

    def __init__(
        self,
        config: ModelConfig,
        *,
        text: TextEncoder,
        video: VideoTokenizer,
        backbones: Mapping[str, AnyBackbone] | None = None,
    ) -> None:
        config.validate()
        super().__init__(config, video)
        self.table = table_from(config.visibility)
        W = self.condition_width = config.condition_width
        pretrained = make_pretrained(
            config,
            backbones or {},
            table=self.table,
            text_width=text.width,
            latent_channels=video.channels,
            latent_side=config.image_size // video.spatial,
        )
        self.bases = pretrained.bases
        widths = {s: config.stream_width(s) for s in config.streams}
        widths |= {s: ends.ends.description.width for s, ends in pretrained.ends.items()}
        unseen = {s for s in config.vectors if not self.table.is_seen(s, config.streams)}
        self.transformer = JointTransformer(
            widths={s: width for s, width in widths.items() if s not in unseen and s not in pretrained.ends},
            depth=config.depth,
            heads=config.heads,
            head_dim=config.head_dim,
            condition_width=W,
            mlp_ratios={s: c.mlp_ratio for s, c in config.streams.items()},
            pretrained=pretrained.layers,
            shared=pretrained.shared,
            attention=config.attention,
            checkpointing=config.checkpointing == "blocks",
        )
        self.clock = ClockEmbedding(W)
        conditioned = (*config.streams, "occupancy") if config.occupancy.loss_weight else tuple(config.streams)
        self.stream_bias = nn.ParameterDict({s: nn.Parameter(torch.zeros(W)) for s in conditioned})
        self.edges = nn.ModuleDict()
        self.stems = nn.ModuleDict()
        self.heads = nn.ModuleDict()
        self.videos = nn.ModuleDict()
        self.video_summaries = nn.ModuleDict()
        for s, c in config.streams.items():
            self._make_edges(s)
            if c.kind == "video":
                self._make_video(s, widths[s], pretrained.ends.get(s))
                continue
            self.stems[s] = make_stem(config, s, width=widths[s], text=text, seen=s not in unseen)
            if c.kind == "chunk":
                self.heads[s] = make_head(config, s, width=widths[s])
        self.prefix = PrefixStem.of(config) if config.longest_prefix else None
        self.occupancy: OccupancyHead | None = None
        if config.occupancy.loss_weight:
            self._make_edges("occupancy")
            self.occupancy = OccupancyHead(config, dict(self.videos.items()), condition_width=W)
        self.action_tokens = NativeTokens.of(config, trunk=self.videos["observation"], width=widths["observation"])
        settle(config, self.transformer, pretrained.ends)

    def _make_video(self, stream: str, width: int, pretrained: PretrainedEnds | SceneEnds | None) -> None:
        c, video = self.config, self.video_tokenizer
        ends = pretrained or make_ends(c, stream, width=width, table=self.table, video=video)
        self.videos[stream] = ends
        if any(stream in self.table.modulators(s, c.streams) for s in c.streams):
            joined = c.streams[stream].tubelet * video.temporal
            frames = 1 if stream == "observation" else len(c.future) // joined
            tokens = tokens_of(ends, frames=frames, side=c.image_size // video.spatial)
            self.video_summaries[stream] = make_summary(c, stream, tokens=tokens, width=width)

    def _make_edges(self, stream: str) -> None:
        for source in self.table.modulators(stream, self.config.streams):
            edge = nn.Linear(self.condition_width, self.condition_width)
            nn.init.normal_(edge.weight, std=self.condition_width**-0.5)  # keeps the summary's unit scale
            self.edges[f"{source}->{stream}"] = edge

    def _ends(self, stream: str) -> VideoEnds:
        return cast(VideoEnds, self.videos[stream])

    def _pretrained(self, stream: str) -> PretrainedEnds | None:
        ends = dict(self.videos.items()).get(stream)
        return ends if isinstance(ends, PretrainedEnds) else None

    def borrowed(self) -> set[str]:
        """Names of weights that a checkpoint leaves to the pretrained base they came from."""
        return borrowed(self.config, self.bases, self)

    # context ----------------------------------------------------------------------------------------------------

    def context(self, batch: Batch, *, hide: Mapping[str, Tensor] | None = None, time: int = 0) -> Context:
        """Run the streams that no noisy stream reaches. hide: rows (B,) bool from which a vector stream is kept away."""
        latents = self.observed(batch)
        size, frames = batch.size, latents.shape[2]
        inputs: dict[str, StreamInput] = {}
        summaries: dict[str, Tensor] = {}
        sentences = batch.instruction or ("",) * size
        prompts = {
            s: ends.read(cast(TextStem, self.stems["text"]).encoder, sentences, batch.images, coder=self)
            for s in self.bases
            if (ends := self._pretrained(s)) is not None
        }
        if "text" in self.stems:
            h, summaries["text"] = self.stems["text"](sentences)
            condition = self.stream_bias["text"].expand(size, 1, -1)
            inputs["text"] = StreamInput(h=h, condition=condition, rotary=self._at(time, h))
        times = time + self.config.history_stride * torch.arange(1 - frames, 1)
        if isinstance(seeing := self.videos["observation"], SceneEnds):
            scene = seeing.look(batch.images, sentences, batch.view_mask)
            inputs["observation"] = scene.input
            if "observation" in self.video_summaries:
                summaries["observation"] = self.video_summaries["observation"](scene.pictures)
        else:
            inputs["observation"] = self._observation(latents, batch.view_mask, summaries, times, prompts)
        hide = unknown_vectors(self.config, batch.state_mask, hide or {})
        inputs |= self._vectors(batch.state, summaries, size=size, hide=hide, embodiment=batch.embodiment, time=time)
        _, caches = self.transformer(inputs, self.table, cache_only=True)
        return Context(
            size=size,
            caches=caches,
            summaries=summaries,
            prompts=prompts,
            present=latents[:, :, -1:],
            view_mask=batch.view_mask,
            embodiment=batch.embodiment,
            time=time,
        )

    @property
    def extendable(self) -> bool:
        """Can observed frames join a context that is already there? They can if frames read only earlier frames and text."""
        streams = set(self.config.streams)
        alone = self.table.inputs("text") & streams <= {"text"}
        return (
            alone
            and isinstance(self.videos["observation"], VideoEnds)
            and "observation" in self.table.causal
            and self.table.inputs("observation") & streams <= {"observation", "text"}
        )

    def extend_context(
        self, context: Context, frames: Tensor, times: Sequence[int], *, window: int, state: Tensor | None = None
    ) -> Context:
        """`context` with further observed frames (B, V, T, H, W, C) at `times`, in dataset frames; the last is the present.

        The newest `window` frames are kept and a frame reads no further back, so the cost does not grow with the past.
        Text's keys move along with the present, which then sees its sentence from where training saw it. state: (B, S)
        normalised, at the new present; unknown where it is None.
        """
        if not self.extendable:
            raise expected(
                "a visibility table under which observed frames read only earlier frames and text",
                got="one that makes old frames depend on what changes",
                do="use visibility `causal`, or compute the context anew",
            )
        latents = self.encode_frames(frames)
        caches, summaries = dict(context.caches), dict(context.summaries)
        if "text" in caches:
            keys = caches["text"].layers[0][0]
            if moved := self._at(times[-1] - context.time, keys[:, 0]):
                caches["text"] = caches["text"].turned(moved)
        for stream in self.config.vectors:
            caches.pop(stream, None)
        inputs = {"observation": self._observation(latents, context.view_mask, summaries, torch.tensor(times), {})}
        _, newer = self.transformer(inputs, self.table, context=caches, cache_only=True, window=window)
        caches["observation"] = caches["observation"].extend(newer["observation"], keep=window)
        if self.config.vectors:
            own = self._vectors(
                state, summaries, size=context.size, hide={}, embodiment=context.embodiment, time=times[-1]
            )
            caches |= self.transformer(own, self.table, context=caches, cache_only=True)[1]
        return replace(context, caches=caches, summaries=summaries, present=latents[:, :, -1:], time=times[-1])

    def _vectors(
        self,
        state: Tensor | None,
        summaries: dict[str, Tensor],
        *,
        size: int,
        hide: Mapping[str, Tensor],
        embodiment: Tensor | None,
        time: int,
    ) -> dict[str, StreamInput]:
        """A token at the present for each stream that reads the state (B, S), or columns of it, and that a stream sees;
        their summaries join `summaries`. hide: rows (B,) bool in which a stream is missing; all where there is no state."""
        inputs = {}
        for s in self.config.vectors:
            device, columns = self.stream_bias[s].device, self.config.streams[s].columns
            if state is None:
                known = torch.zeros(size, self.config.state_dim, device=device)
                missing = torch.ones(size, dtype=torch.bool, device=device)
            elif state.shape[1] != self.config.state_dim:
                raise expected(
                    f"a state of {self.config.state_dim} numbers", got=state.shape[1], do="check the dataset"
                )
            else:
                known, missing = state, hide.get(s, torch.zeros(size, dtype=torch.bool, device=device))
            h, summaries[s] = self.stems[s](known[:, columns] if columns else known, missing, embodiment)
            if s in self.transformer.experts:
                inputs[s] = StreamInput(h=h, condition=self._condition(s, summaries, size), rotary=self._at(time, h))
        return inputs

    def _observation(
        self,
        latents: Tensor,
        view_mask: Tensor | None,
        summaries: dict[str, Tensor],
        times: Tensor,
        prompts: Mapping[str, Prompt],
    ) -> StreamInput:
        """Latents (B, V, T, h, w, c) of observed frames at `times` (T,), in dataset frames; the newest frame's summary
        joins `summaries`."""
        size, _, frames = latents.shape[:3]
        if view_mask is not None:
            latents = latents * view_mask[:, :, None, None, None, None]
        condition = self._condition("observation", summaries, size)
        if (pretrained := self._pretrained("observation")) is not None:
            prompt = prompts[self.config.streams["observation"].shares]
            passage = pretrained.embed(latents, condition, clock=latents.new_zeros(size), prompt=prompt)
            if "observation" in self.video_summaries:
                summaries["observation"] = self.video_summaries["observation"](passage.frames[:, -1])
            return passage.input
        ends = self._ends("observation")
        h, _ = ends.embed(latents, condition)
        if "observation" in self.video_summaries:
            summaries["observation"] = self.video_summaries["observation"](h[:, -1].flatten(1, 2))
        return StreamInput(
            h=h.flatten(1, 3),
            condition=condition,
            rotary=self._rotary(grid_positions(times, ends.config.grid, ends.groups), latents.device),
            frames=frames,
        )

    def _at(self, time: int, tokens: Tensor) -> tuple[Tensor, Tensor] | None:
        """The rotation of tokens (B, L, D) that sit at the present and nowhere in a picture; none at time 0."""
        if time == 0:
            return None
        return self._rotary(chunk_positions(torch.full((tokens.shape[1],), time)), tokens.device)

    def _rotary(self, positions: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        return rotary_table(positions.to(device), self.config.head_dim)

    def _condition(
        self, stream: str, summaries: Mapping[str, Tensor], size: int, clock: Tensor | None = None
    ) -> Tensor:
        """(B, G, W): the stream's own bias, its embedded clock (B, G, W) and the summaries that modulate it."""
        condition = self.stream_bias[stream].expand(size, 1, -1)
        if clock is not None:
            condition = condition + clock
        for source in self.table.modulators(stream, summaries):
            condition = condition + self.edges[f"{source}->{stream}"](summaries[source])
        return condition

    # denoising --------------------------------------------------------------------------------------------------

    def denoise(
        self,
        context: Context,
        signals: Mapping[str, Tensor],
        clocks: Mapping[str, Tensor],
        *,
        settled: Tensor | None = None,
        drawn: dict[str, Drawn] | None = None,
    ) -> dict[str, Tensor]:
        """Predictions of every stream in `signals`, each in its own parametrisation.

        signals: future latents (B, V, T, h, w, c), chunks (B, K, A), at `clocks` (B,) (or (B, T / tubelet) for video).
        settled (B, K) bool: first actions that are clean whatever their chunk's clock; what is said of those means nothing.
        drawn: takes what each video was drawn from, for `voxels`.
        """
        size = context.size
        embedded = {s: self.clock(clocks[s]) for s in signals}
        if settled is not None:
            embedded["action"] = self._told(signals["action"], settled, embedded["action"], context.embodiment)
        tokens: dict[str, Tensor] = {}
        conditions: dict[str, Tensor] = {}
        features: dict[str, Sequence[Tensor]] = {}
        passages: dict[str, Passage] = {}
        summaries = dict(context.summaries)
        chunks, videos = ([s for s in signals if (s in self.videos) == video] for video in (False, True))
        for s in chunks:
            tokens[s], summaries[s] = self.stems[s](signals[s], embedded[s][:, 0], context.embodiment)
        for s in videos:  # after the chunks, whose summaries already steer a video's stem
            conditions[s] = self._condition(s, summaries, size, embedded[s])
            if (pretrained := self._pretrained(s)) is not None:
                passages[s] = pretrained.embed(
                    signals[s],
                    conditions[s],
                    clock=clocks[s],
                    prompt=context.prompts[s],
                    present=context.present,
                    start=0 if pretrained.leads else context.caches["observation"].frames,
                )
                tokens[s] = passages[s].input.h
            else:
                h, features[s] = self._ends(s).embed(
                    signals[s], conditions[s], present=context.present, clock=clocks[s]
                )
                tokens[s] = h.flatten(1, 3)
            if s in self.video_summaries:
                summaries[s] = self.video_summaries[s](tokens[s], embedded[s].mean(1))
        for s in chunks:
            conditions[s] = self._condition(s, summaries, size, embedded[s])
        inputs = {
            s: passages[s].input
            if s in passages
            else StreamInput(
                h=tokens[s],
                condition=conditions[s],
                rotary=self._rotary(
                    positions_of(self.config, s, signal, self.videos, video=self.video_tokenizer, time=context.time),
                    signal.device,
                ),
                frames=conditions[s].shape[1] if s in features else 1,
                settled=padded(settled, tokens[s].shape[1]) if s == "action" and settled is not None else None,
            )
            for s, signal in signals.items()
        }
        h, _ = self.transformer(inputs, self.table, context=context.caches)
        predictions: dict[str, Tensor] = {}
        for s, signal in signals.items():
            if (pretrained := self._pretrained(s)) is not None:
                predictions[s] = pretrained.predict(h[s], passages[s])
                continue
            if s not in features:
                chunk = h[s][:, : signal.shape[1]]
                predictions[s] = self.heads[s](chunk, conditions[s][:, :1], context.embodiment)
                continue
            times = signal.shape[2] // self.config.streams[s].tubelet
            predictions[s], finest = self._ends(s).predict(
                h[s], features[s], conditions[s], present=context.present, times=times
            )
            if drawn is not None:
                drawn[s] = Drawn(features=finest, condition=conditions[s])
        return predictions

    def _told(self, chunk: Tensor, settled: Tensor, clock: Tensor, embodiment: Tensor | None) -> Tensor:
        """(B, 2, W): what a chunk's free actions are told of their embedded clock (B, 1, W), and what settled ones are."""
        if self.prefix is None:
            raise expected(
                "a model trained with prefixes", got="one without", do="set model.prefix.share=0.5 to train one"
            )
        clean = self.clock(chunk.new_zeros(1)).expand_as(clock)
        return torch.cat([clock + self.prefix(chunk, settled, embodiment), clean], dim=1)

    def voxels(
        self, context: Context, cameras: Cameras, *, future: Drawn | None = None, rows: Tensor | None = None
    ) -> Voxels:
        """What is said (N, 1 + T, X, Y, Z) of the voxels at the present, and at each frame that `future` was drawn for; at the
        present alone without one. rows (N,): of the context's, None for all; cameras: of the N rows. The observation's stem
        runs on those rows again, few in training, so that a context keeps nothing for voxels that nobody wants."""
        if self.occupancy is None:
            raise expected("a model with voxels", got="one without", do="train it with model.occupancy.loss_weight=1")
        rows = torch.arange(context.size, device=context.present.device) if rows is None else rows
        ends = self._ends("observation")
        condition = self._condition("observation", context.summaries, context.size)[rows]
        present = context.present[rows] * cameras.mask[:, :, None, None, None, None]
        seen = ends.looked_at(*ends.embed(present, condition))
        told = self._condition("occupancy", context.summaries, context.size)[rows]
        return self.occupancy(seen, told, cameras, future=None if future is None else future.take(rows))
