"""AVID with cross-modal agreement, CMA (AVID paper §4, methods §3).

To Cross-AVID comes within-modal discrimination of positives: a clip's picture is drawn to the
remembered pictures of those instances that agree with it in picture and sound, and its sound to
their sounds (Eq. 8). No instance that agrees is drawn as a negative, in either term. Positives are
found in the banks before the first batch after `warmup_epochs`, and anew every `refresh_epochs`.

Held-out clips have no positives: there, as for Cross-AVID, only the cross-modal terms are measured.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from train.cuts import RunFacts
from train.methods.avid import SELF, Avid, Term, chance_of_hits, trained_ids
from train.methods.avid_config import CMA_PRESETS, CODE_NEGATIVES, AvidCmaConfig
from train.objectives.agreement import AgreementBanks
from train.objectives.global_local import Gather, keep_local
from train.objectives.memory_bank import draw_some, hashed

__all__ = ["CMA_PRESETS", "AvidCma", "AvidCmaConfig"]

SUBSET, OWN_AMONG_NEGATIVES = 1, 2
"""Purposes of `hashed`, beside 0 for negatives."""


class AvidCma(Avid):
    """Avid, with `AgreementBanks` as its memory."""

    config: AvidCmaConfig
    memory: AgreementBanks | None

    def __init__(self, config: AvidCmaConfig, gather: Gather = keep_local) -> None:
        """Build the networks; see `Avid`."""
        super().__init__(config, gather)

    def new_banks(self, facts: RunFacts) -> AgreementBanks:
        """With random vectors for every clip, and a schedule of when positives are found."""
        config = self.config
        first, every = (
            round(epochs * facts.steps_per_epoch) * facts.accumulation  # never within a step
            for epochs in (config.warmup_epochs, config.refresh_epochs)
        )
        return AgreementBanks(
            facts.instances,
            config.embedding,
            config.momentum,
            count=config.found_positives,
            agreement=config.agreement,
            first=first,
            every=max(every, facts.accumulation),
            trained=trained_ids(facts),
        )

    def scored(self, instance: Tensor, vectors: Mapping[str, Tensor]) -> dict[str, Term]:
        """Scores of the cross-modal terms, and of v2v_positives and a2a_positives.

        During the warm-up those of Cross-AVID.
        """
        banks = self._banks
        assert isinstance(banks, AgreementBanks)
        if not banks.ready():
            return super().scored(instance, vectors)
        positives = banks.positives[instance].long()
        family = torch.cat([instance[:, None], positives], dim=1).sort(dim=1).values
        others = self.drawn(instance, family)
        memories = self.recalled(others)
        terms = self.contrasted(instance, vectors, memories, chance_of_hits(others))
        agreeing = self.recalled(self._some(instance, positives))
        if self.config.within == "code":
            others = self.drawn(instance, positives, CODE_NEGATIVES, OWN_AMONG_NEGATIVES)
            memories = self.recalled(others)
        for name, (x, y) in SELF.items():
            terms[f"{name}_positives"] = Term(
                self.scores(vectors[x], agreeing[y]),
                self.scores(vectors[x], memories[y]),
                chance_of_hits(others),
                self.config.positive_weight,
            )
        return terms

    def _some(self, instance: Tensor, positives: Tensor) -> Tensor:
        """K_p of the positives (B, P), others in each step."""
        bits = hashed(instance, self._banks.batches, positives.shape[1], SUBSET)
        return draw_some(positives, bits, self.config.used_positives)
