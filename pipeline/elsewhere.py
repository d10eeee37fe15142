"""Where pages, pictures and tables about a set may be written: not over the set's own files."""

from collections.abc import Sequence
from pathlib import Path

from manifests.errors import UsageError


def require_page(option: str, path: Path, outs: Sequence[Path]) -> None:
    """A page takes the place of no file of a set.

    Pages directly in a set's folder are those that `drop --purge` looks through.

    Raises:
        UsageError: it would, or it is called otherwise.
    """
    if path.suffix.lower() != ".html":
        raise UsageError(f"{option} {path}: expected a name that ends in .html")
    for out in outs:
        inside = path.resolve().is_relative_to(out.resolve())
        if inside and (path.resolve().parent != out.resolve() or path.name == "report.html"):
            raise UsageError(f"{option} {path} is a place of the set's own files; another name "
                             f"directly in {out} will do, or any other folder")  # fmt: skip


def require_outside(option: str, path: Path, outs: Sequence[Path]) -> None:
    """A file that is none of a set's own is not written into one.

    Raises:
        UsageError: it would be.
    """
    for out in outs:
        if path.resolve().is_relative_to(out.resolve()):
            raise UsageError(
                f"{option} {path} lies in the set {out}, where it could take the place of a file, "
                "and `drop --purge` would not find what it shows; name another folder"
            )
