"""Co-attention of sound and pictures (ACM MM 2020, §3.1; methods §5): blocks, and streams of them.

One block serves for all of the paper's Figure 3: where queries and keys are the same features it is
self-attention (SA); where the queries are the other stream's, cross-modal attention. Audio-guided
attention (AGA) looks at the cells of the pictures for each moment of the sound, visual-guided
attention (VGA) at the moments of the sound for each cell.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Guidance = Literal["cma", "aga", "vga"]


class AttentionBlock(nn.Module):
    """Multi-head attention and a feed-forward network, each with a residual and LayerNorm after it.

    y = LN(q + MultiHead(q, k, v)); output LN(y + FFN(y)) (Eq. 1 and 2). The residual of the
    attention is the query: the only choice that has its shape, the paper does not say.
    """

    def __init__(self, width: int = 512, heads: int = 8, ffn_width: int = 2048) -> None:
        """Build a block.

        Args:
            width: d, of all features.
            heads: m; width is a multiple of it.
            ffn_width: of the feed-forward network's middle.
        """
        super().__init__()
        self.heads = heads
        self.to_query = nn.Linear(width, width)
        self.to_key = nn.Linear(width, width)
        self.to_value = nn.Linear(width, width)
        self.to_output = nn.Linear(width, width)
        self.norm_attended = nn.LayerNorm(width)
        self.ffn = nn.Sequential(
            nn.Linear(width, ffn_width), nn.ReLU(), nn.Linear(ffn_width, width)
        )
        self.norm_output = nn.LayerNorm(width)

    def forward(self, query: Tensor, source: Tensor) -> Tensor:
        """Look at `source` for what `query` asks.

        Args:
            query: (B, N, d).
            source: (B, M, d), keys and values.

        Returns:
            (B, N, d).
        """
        attended = F.scaled_dot_product_attention(
            self._per_head(self.to_query(query)),
            self._per_head(self.to_key(source)),
            self._per_head(self.to_value(source)),
        )
        joined = self.to_output(attended.transpose(1, 2).flatten(2))
        attended = self.norm_attended(query + joined)
        output: Tensor = self.norm_output(attended + self.ffn(attended))
        return output

    def weights(self, query: Tensor, source: Tensor) -> Tensor:
        """How much each query looks at each source: (B, heads, N, M) float32, rows sum to 1."""
        queries = self._per_head(self.to_query(query)).float()
        keys = self._per_head(self.to_key(source)).float()
        scores = queries @ keys.transpose(2, 3) / queries.shape[3] ** 0.5
        return torch.softmax(scores, dim=3)

    def _per_head(self, features: Tensor) -> Tensor:
        """(B, N, d) -> (B, heads, N, d / heads)."""
        clips, count, _ = features.shape
        return features.view(clips, count, self.heads, -1).transpose(1, 2)


class CoAttention(nn.Module):
    """`depth` modules, in each of which both streams are guided and then attend to themselves.

    A stream that is not guided keeps its own queries: its first block is self-attention too. So all
    three kinds have four blocks a module, and the 15 M parameters of the paper's Table 1.

    Attributes:
        guidance: `cma`: both streams are guided by the other one; `aga`: pictures by the sound;
            `vga`: sound by the pictures.
    """

    def __init__(
        self,
        *,
        depth: int = 1,
        guidance: Guidance = "cma",
        width: int = 512,
        heads: int = 8,
        ffn_width: int = 2048,
    ) -> None:
        """Build all blocks; see `AttentionBlock` for widths."""
        super().__init__()
        self.guidance: Guidance = guidance

        def blocks() -> nn.ModuleList:
            return nn.ModuleList(AttentionBlock(width, heads, ffn_width) for _ in range(depth))

        self.audio_cross, self.audio_self = blocks(), blocks()
        self.visual_cross, self.visual_self = blocks(), blocks()

    @property
    def sound_guides(self) -> bool:
        """Whether the visual stream's queries are of the sound."""
        return self.guidance in ("cma", "aga")

    @property
    def pictures_guide(self) -> bool:
        """Whether the audio stream's queries are of the pictures."""
        return self.guidance in ("cma", "vga")

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Exchange what sound and pictures know.

        Args:
            audio: (B, N_a, d) F_a, moments.
            visual: (B, N_v, d) F_v, cells.

        Returns:
            H_a and H_v. A guided stream has as many vectors as its guide, see `lengths`.
        """
        layers = zip(
            self.audio_cross, self.audio_self, self.visual_cross, self.visual_self, strict=True
        )
        for audio_cross, audio_self, visual_cross, visual_self in layers:
            guided = audio_cross(visual if self.pictures_guide else audio, audio)
            visual = visual_cross(audio if self.sound_guides else visual, visual)
            audio = guided
            audio, visual = audio_self(audio, audio), visual_self(visual, visual)
        return audio, visual

    def pictures_alone(self, visual: Tensor) -> Tensor:
        """H_v (B, N_v, d) without any sound: Q_v is F_v (paper §5.2, vision only)."""
        for cross, itself in zip(self.visual_cross, self.visual_self, strict=True):
            visual = cross(visual, visual)
            visual = itself(visual, visual)
        return visual

    def lengths(self, audio: int, visual: int) -> tuple[int, int]:
        """N of H_a and H_v for N_a and N_v vectors of the encoders."""
        for _ in self.audio_cross:
            audio, visual = (
                visual if self.pictures_guide else audio,
                audio if self.sound_guides else visual,
            )
        return audio, visual

    def head_maps(self, audio: Tensor, visual: Tensor) -> Tensor:
        """Where each head of the first AGA block looks.

        Returns:
            (B, heads, N_a, N_v) float32, rows sum to 1.

        Raises:
            ValueError: no block is guided by the sound.
        """
        if not self.sound_guides:
            raise ValueError(f"guidance is {self.guidance!r}; only with 'cma' and 'aga' does the "
                             "sound look at the pictures")  # fmt: skip
        first: AttentionBlock = self.visual_cross[0]  # type: ignore[assignment]
        return first.weights(audio, visual)
