"""`pipeline verify OUT [--deep]`: can this shard set be trusted?

Reads plan, sidecars, tars and the files written last; changes nothing. The ledger must close
(rows planned = samples + errors), every key occur once, every tar be the one its sidecar describes.
`deep` decodes every sample as a trainer would (`pipeline.check`), in several processes if asked.
"""

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Flag, IntEnum, auto
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow.parquet as pq
from tqdm import tqdm

from pipeline.account import Account, account_of
from pipeline.check import UNREADABLE, ShardCheck, check_shard, key_hash
from pipeline.dropped import purged_keys
from pipeline.errors import Reason, plain_text
from pipeline.field_check import field_findings
from pipeline.format import FormatError
from pipeline.outputs import NotFinishedError, Outputs, reading_table
from pipeline.plan import Plan, PlannedShard
from pipeline.progress import LINE_EVERY_SECONDS
from pipeline.purge import waiting_shards
from pipeline.rebuilt import table_findings
from pipeline.units import bytes_text, counted, time_text
from pipeline.view import quality_notes

MAX_FINDINGS = 1000
"""Sentences kept; further ones are counted."""
MAX_SHOWN = 40


class ExitCode(IntEnum):
    """How `pipeline verify` ends (architecture §2)."""

    OK = 0
    INCOMPLETE = 3
    CORRUPT = 5


class Cure(Flag):
    """What mends a finding; several findings may need several."""

    NONE = 0
    SHARD = auto()
    """Remove the sidecars of the shards named, then run the job again."""
    STRAY = auto()
    """Remove what no plan knows."""
    AGAIN = auto()
    """Run the job again: it makes missing shards, manifest, config and class names."""
    FINALIZE = auto()
    """Write index and tables again."""
    FIELD = auto()
    """What the sentence says: fields and tables of quality/ have commands of their own."""
    PURGE = auto()
    """The purge that was stopped, once more."""
    ANEW = auto()
    """Nothing but a new set."""


@dataclass
class Verdict:
    """What is true of a shard set, and every sentence that says otherwise."""

    out: Path
    deep: bool
    planned_rows: int = 0
    planned_shards: int = 0
    committed_shards: int = 0
    samples: int = 0
    errors: int = 0
    """Error rows, rows that were never reached included."""
    not_run: int = 0
    """Error rows that `--limit` left out; rows of missing shards are findings of their own."""
    dropped: int = 0
    """Rows taken back: neither samples nor errors."""
    filesize: int = 0
    """Bytes of all tars."""
    seconds: float = 0.0
    """Seconds of video stored."""
    corrupt: list[str] = field(default_factory=list)
    """Something is there and is not what it should be."""
    missing: list[str] = field(default_factory=list)
    """Something is not there yet."""
    unlisted: int = 0
    """Findings beyond the first thousand."""
    cures: Cure = Cure.NONE
    """What the findings need, put together."""

    @property
    def exit_code(self) -> ExitCode:
        """0 as it should be, 3 incomplete, 5 corrupt; corrupt wins."""
        if self.corrupt:
            return ExitCode.CORRUPT
        return ExitCode.INCOMPLETE if self.missing else ExitCode.OK

    def add(self, findings: list[str], sentence: str, cure: Cure) -> None:
        """Keep a finding while there are few, count it afterwards."""
        self.cures |= cure
        if len(findings) < MAX_FINDINGS:
            findings.append(sentence)
        else:
            self.unlisted += 1

    @property
    def advice(self) -> str:
        """What to do about the findings."""
        if Cure.ANEW in self.cures:
            return "make the set anew: its `python -m pipeline shards` command with --overwrite"
        steps = []
        if Cure.PURGE in self.cures:
            steps.append(f"run `python -m pipeline drop {self.out} --keys FILE --purge` again")
        if Cure.STRAY in self.cures:
            steps.append("remove the tars that are not in the plan")
        if Cure.SHARD in self.cures:
            steps.append("remove the sidecars of the shards named")
        if self.cures & (Cure.SHARD | Cure.AGAIN):
            steps.append("run the `python -m pipeline shards` command of this set again")
        elif Cure.FINALIZE in self.cures and Cure.PURGE not in self.cures:  # it does that, too
            steps.append(f"run `python -m pipeline finalize {self.out}`")
        if Cure.FIELD in self.cures:
            steps.append("do what is said of fields and quality/")
        return ", then ".join(steps)

    def _ledger_line(self) -> str:
        """As the job itself says it."""
        verdict = "THE LEDGER DOES NOT CLOSE"
        if self.planned_rows == self.samples + self.errors + self.dropped:
            verdict = "the ledger closes"
        elif self.exit_code == ExitCode.INCOMPLETE:  # as `status` and `finalize` of a running job
            verdict = "the ledger is open until what is missing is there"
        return (
            f"{counted(self.planned_rows, 'row')} planned = {counted(self.samples, 'sample')} + "
            f"{counted(self.errors - self.not_run, 'error')}"
            + (f" + {self.not_run:,} not run" if self.not_run else "")
            + (f" + {self.dropped:,} dropped" if self.dropped else "")
            + f": {verdict}"
        )

    def lines(self) -> list[str]:
        """The verdict for a terminal: findings first, the ledger last."""
        found = [*(f"corrupt: {text}" for text in self.corrupt),
                 *(f"missing: {text}" for text in self.missing)]  # fmt: skip
        hidden = len(found[MAX_SHOWN:]) + self.unlisted
        said = {
            ExitCode.OK: "every sample decodes" if self.deep else "every tar has its sha256",
            ExitCode.INCOMPLETE: f"incomplete; {self.advice}",
            ExitCode.CORRUPT: f"corrupt; {self.advice}",
        }[self.exit_code]
        return [
            *found[:MAX_SHOWN],
            *([f"and {hidden:,} findings more"] if hidden else []),
            f"{self.committed_shards:,} of {counted(self.planned_shards, 'shard')}, "
            f"{bytes_text(self.filesize)}, {time_text(self.seconds)} of video",
            self._ledger_line(),
            said,
        ]


def verify(
    out: Path, deep: bool = False, *, workers: int = 1, progress: TextIO | None = sys.stderr
) -> Verdict:
    """Check a shard set.

    Args:
        out: the OUT folder of `pipeline shards`.
        deep: decode every sample.
        workers: processes; 1 checks in this one.
        progress: where the bar goes, None for silence.

    Raises:
        NotFinishedError: there is no plan.
        FormatError: the plan cannot be read.
    """
    outputs = Outputs(out)
    plan = outputs.plan
    verdict = Verdict(out, deep, plan.planned_rows, len(plan.shards))
    keys: list[np.ndarray[Any, np.dtype[np.uint64]]] = []
    tars: dict[str, tuple[int, str]] = {}
    if outputs.stored_config.get("config_hash") != plan.config_hash:
        said = "config.json and plan.json have different config_hash"
        verdict.add(verdict.corrupt, said, Cure.AGAIN)
    for check_file in (outputs.check_manifest, outputs.labels):
        _check_file(verdict, check_file)
    account = _account(verdict, outputs)
    verdict.dropped = len(account.dropped)
    half_purged = _half_purged(verdict, outputs)
    _check_purged(verdict, outputs, account)
    checks = _checks(out, plan, deep, workers, account)
    for check in _shown(checks, len(plan.shards), progress):
        _count(verdict, check, half_purged)
        keys.append(check.keys)
        tars[f"shards/{check.shard}.tar"] = (check.stored, check.sha256)
    _check_keys(verdict, outputs, account, np.concatenate([np.empty(0, np.uint64), *keys]))
    _check_ledger(verdict, outputs, tars)
    _check_strays(verdict, outputs, tars)
    _check_fields(verdict, outputs, deep)
    _check_said(verdict, lambda: quality_notes(out), verdict.missing, Cure.FIELD)
    if deep:
        _check_said(verdict, lambda: table_findings(out), verdict.corrupt, Cure.FINALIZE)
    return verdict


def _account(verdict: Verdict, outputs: Outputs) -> Account:
    """What patches and tombstones say; nothing where they cannot be read, which is a finding."""
    try:
        return account_of(outputs.out, outputs.plan)
    except FormatError as error:
        verdict.add(verdict.corrupt, plain_text(str(error)), Cure.AGAIN)
        return Account()


def _checks(
    out: Path, plan: Plan, deep: bool, workers: int, account: Account
) -> Iterator[ShardCheck]:
    """The check of every shard, in plan order; few are under way at a time, to bound memory."""

    def arguments(shard: PlannedShard) -> tuple[Path, PlannedShard, str, bool, frozenset[str]]:
        return out, shard, plan.config_hash, deep, account.not_of(shard.name)

    if workers <= 1:
        yield from (check_shard(*arguments(shard)) for shard in plan.shards)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting: deque[tuple[PlannedShard, Future[ShardCheck]]] = deque()
        for shard in plan.shards:
            if len(waiting) >= 2 * workers:
                yield _result(*waiting.popleft())
            with suppress(BrokenExecutor):
                future = pool.submit(check_shard, *arguments(shard))
                waiting.append((shard, future))
                continue
            yield ShardCheck(shard.name, True, findings=[f"{shard.name}: not checked"])
        yield from (_result(*item) for item in waiting)


def _result(shard: PlannedShard, future: "Future[ShardCheck]") -> ShardCheck:
    try:
        return future.result()
    except BrokenExecutor:
        said = "a reader died here or in a shard beside it; verify with one worker to see where"
        return ShardCheck(shard.name, True, findings=[f"{shard.name}: {said}"])


def _shown(
    checks: Iterator[ShardCheck], total: int, progress: TextIO | None
) -> Iterator[ShardCheck]:
    """A bar on a terminal, a line every ten seconds elsewhere."""
    if progress is None or progress.isatty():
        yield from tqdm(checks, total=total, unit="shard", file=progress, disable=progress is None)
        return
    said = time.monotonic()
    for number, check in enumerate(checks, 1):
        now = time.monotonic()
        if now - said >= LINE_EVERY_SECONDS:
            said = now
            progress.write(f"verify: {number} of {total} shards\n")
            progress.flush()
        yield check


def _half_purged(verdict: Verdict, outputs: Outputs) -> set[str]:
    """Shards whose purge was stopped beside their tars; only it has what belongs there now."""
    shards = waiting_shards(outputs.out)
    for shard in sorted(shards):
        said = f"{shard}: a purge was stopped between its tar and its sidecar"
        verdict.add(verdict.missing, said, Cure.PURGE)
    return shards


def _check_purged(verdict: Verdict, outputs: Outputs, account: Account) -> None:
    """Who made a shard meanwhile without knowing of a purge has brought its clips back.

    Tasks of a job array on a store hold no lease, and that of other jobs is advisory.
    """
    if not account.dropped:
        return
    purged = purged_keys(outputs.out)
    for shard in outputs.plan.shards:
        gone = account.dropped_of(shard.name) & purged
        with suppress(FormatError):  # said where the shard is checked
            sidecar = outputs.sidecar(shard.name) if gone else None
            held = sum(entry["key"] in gone for entry in sidecar.samples) if sidecar else 0
            if held:
                said = f"{shard.name}: {counted(held, 'sample')} in its tar should be purged"
                verdict.add(verdict.corrupt, said, Cure.PURGE)


def _count(verdict: Verdict, check: ShardCheck, half_purged: set[str]) -> None:
    verdict.committed_shards += check.committed
    verdict.samples += check.samples
    verdict.errors += check.errors
    verdict.filesize += check.filesize
    verdict.seconds += check.seconds
    if not check.committed:
        verdict.add(verdict.missing, f"{check.shard} is not committed", Cure.AGAIN)
    # Where the rows are not the planned ones, what else differs may be their fault: them first.
    cure = Cure.AGAIN if check.row_findings else Cure.SHARD
    cure = Cure.PURGE if check.shard in half_purged else cure
    for sentence in [*check.row_findings, *check.findings]:
        verdict.add(verdict.corrupt, sentence, cure)


def _check_keys(
    verdict: Verdict,
    outputs: Outputs,
    account: Account,
    hashes: np.ndarray[Any, np.dtype[np.uint64]],
) -> None:
    """Every row ends in one place. Only keys whose hashes meet are read and compared in full."""
    values, counts = np.unique(hashes, return_counts=True)
    suspects = {int(value) for value in values[counts > 1]}
    if not suspects:
        return
    places: Counter[str] = Counter()
    for shard, sidecar in outputs.sidecars():
        rows = [*sidecar.samples, *sidecar.errors] if sidecar else []
        keys = {row["key"] for row in rows} - account.not_of(shard.name)
        places.update(row["key"] for row in rows
                      if row["key"] in keys and key_hash(row["key"]) in suspects)  # fmt: skip
    for key, count in places.items():
        if count > 1:
            said = f"the key {plain_text(key)!r} occurs {count} times"
            verdict.add(verdict.corrupt, said, Cure.ANEW)


# --- the files written last -------------------------------------------------------------------


def _check_file(verdict: Verdict, read: Callable[[], object]) -> None:
    """Whether a file that the job writes first can be read."""
    try:
        read()
    except NotFinishedError as error:
        verdict.add(verdict.missing, str(error), Cure.AGAIN)
    except FormatError as error:
        verdict.add(verdict.corrupt, plain_text(str(error)), Cure.AGAIN)


def _check_ledger(verdict: Verdict, outputs: Outputs, tars: Mapping[str, tuple[int, str]]) -> None:
    """Whether index, samples.parquet and errors.parquet say what the sidecars say."""
    try:
        index = outputs.index()
        with reading_table(outputs.samples_path):
            listed = pq.ParquetFile(outputs.samples_path).metadata.num_rows
        with reading_table(outputs.errors_path):
            failed, not_run = _count_errors(outputs.errors_path)
    except NotFinishedError as error:
        verdict.add(verdict.missing, str(error), Cure.FINALIZE)
        return
    except FormatError as error:
        verdict.add(verdict.corrupt, plain_text(str(error)), Cure.FINALIZE)
        return
    if verdict.committed_shards < verdict.planned_shards and _is_older(index, tars):
        said = "index and tables are older than the last shards; they are written at the end"
        verdict.add(verdict.missing, said, Cure.AGAIN)
        return
    if listed != verdict.samples:
        said = f"samples.parquet has {listed} rows, the sidecars {verdict.samples} samples"
        verdict.add(verdict.corrupt, said, Cure.FINALIZE)
    verdict.errors = failed
    if verdict.planned_rows != listed + failed + verdict.dropped:
        said = f"{verdict.planned_rows} rows planned, {listed} samples + {failed} errors listed"
        said += f" + {verdict.dropped} dropped" if verdict.dropped else ""
        verdict.add(verdict.missing, said, Cure.FINALIZE)
    verdict.not_run = not_run
    _check_index(verdict, index, tars)


def _is_older(index: dict[str, Any], tars: Mapping[str, tuple[int, str]]) -> bool:
    """Whether the index says nothing false of the shards there are, but lacks some of them."""
    listed: dict[str, Any] = {
        str(entry.get("url")): (entry.get("nsamples"), entry.get("sha256"))
        for entry in index.get("shardlist") or ()
    }
    with_samples = {url for url, (stored, _) in tars.items() if stored}
    same = all(tars.get(url) == facts for url, facts in listed.items())
    return same and listed.keys() < with_samples


def _count_errors(path: Path) -> tuple[int, int]:
    """Rows, and those that were never reached."""
    rows, not_run = 0, 0
    for batch in pq.ParquetFile(path).iter_batches(columns=["reason"]):
        rows += batch.num_rows
        not_run += batch.column(0).to_pylist().count(Reason.NOT_RUN)
    return rows, not_run


def _check_strays(verdict: Verdict, outputs: Outputs, planned: Mapping[str, object]) -> None:
    """Tars that no plan knows: whoever reads `shards/*.tar` would read them too."""
    for tar in outputs.tars():
        if f"shards/{tar}" not in planned:
            said = f"{plain_text(tar)} is not in the plan"
            verdict.add(verdict.corrupt, said, Cure.STRAY)


def _check_fields(verdict: Verdict, outputs: Outputs, deep: bool) -> None:
    """Whether the fields that were added belong to the set as it is; each finding has its cure."""
    try:
        index = outputs.index()
    except (NotFinishedError, FormatError):
        return  # said where the index itself is checked
    for finding in field_findings(outputs.out, index, deep):
        findings = verdict.corrupt if finding.is_corrupt else verdict.missing
        verdict.add(findings, finding.sentence, Cure.FIELD)


def _check_said(
    verdict: Verdict, sentences: Callable[[], Iterable[str]], findings: list[str], cure: Cure
) -> None:
    """What somebody finds who looks at several files; who cannot read one says so, too."""
    try:
        for sentence in sentences():
            verdict.add(findings, sentence, cure)
    except (NotFinishedError, FormatError):
        return  # said where the file itself is checked
    except UNREADABLE as error:
        verdict.add(verdict.corrupt, plain_text(str(error)), cure)


def _check_index(
    verdict: Verdict, index: dict[str, Any], tars: Mapping[str, tuple[int, str]]
) -> None:
    try:
        listed = {
            shard["url"]: (shard["nsamples"], shard["sha256"]) for shard in index["shardlist"]
        }
        twice = len(index["shardlist"]) - len(listed)
        counted = index["counts"]["samples"]
        ledger = {"planned": verdict.planned_rows, "errors": verdict.errors}
        wrong = {name: index["counts"][name] for name in ledger} != ledger
        wrong |= index["counts"].get("dropped", 0) != verdict.dropped
    except (KeyError, TypeError) as error:
        verdict.add(verdict.corrupt, f"shardindex.json lacks {error}", Cure.FINALIZE)
        return
    if twice:
        verdict.add(verdict.corrupt, f"shardindex.json lists {twice} shards twice", Cure.FINALIZE)
    if wrong:
        verdict.add(verdict.corrupt, f"shardindex.json does not count {ledger}", Cure.FINALIZE)
    if not index.get("complete"):
        verdict.add(verdict.missing, "shardindex.json is marked incomplete", Cure.FINALIZE)
    if counted != verdict.samples:
        said = f"shardindex.json counts {counted} samples, the sidecars {verdict.samples}"
        verdict.add(verdict.corrupt, said, Cure.FINALIZE)
    # A shard without a sample may be left out: readers of the ecosystem trip over empty tars.
    expected = {url: facts for url, facts in tars.items() if facts[0]}
    for url in sorted(expected.keys() | listed.keys()):
        if listed.get(url, (0, "")) != expected.get(url, listed.get(url)):
            said = f"shardindex.json and the sidecar disagree about {url}"
            verdict.add(verdict.corrupt, said, Cure.FINALIZE)
        elif url not in tars:
            said = f"shardindex.json lists {plain_text(str(url))!r}"
            verdict.add(verdict.corrupt, said, Cure.FINALIZE)
