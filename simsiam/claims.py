"""The one claim of a place to write to, for every command: nothing is written over that this program did not make.

    with claims.claim(out, command="predict", makes=names, inputs=images):
        ...  # write the files, through results.write_atomic

A claimed folder holds `.simsiam.json`: for each command that wrote there its version and its files. What stands in
no such list is never written over; `again` removes listed files alone; what an earlier call of the same command left
and this one does not renew is removed at the end, and said. Two processes never share a claim.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from simsiam import locks
from simsiam.errors import UserError
from simsiam.results import file_digest, read_json, read_metrics, require_writable, versions, write_json
from simsiam.wording import counted

MANIFEST = ".simsiam.json"
_SHOWN = 5  # names in a message


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one command made in a folder.

    `files` maps names, relative to the folder, to the SHA-256 that each was left with; None in a whole folder, whose
    files a later call continues with. While the command runs, and after it was killed, they are those that it may make.
    """

    version: str
    whole: bool  # the folder belongs to this command alone
    files: dict[str, str | None]


@contextlib.contextmanager
def claim(
    folder: Path,
    *,
    command: str,
    makes: Sequence[str],
    inputs: Iterable[Path] = (),
    whole: bool = False,
    again: bool = False,
    keep: Sequence[str] = (),
    adopt: bool = False,
    flag: str = "--out",
) -> Iterator[None]:
    """Hold a place while a command writes its files there.

    Args:
        folder: it is made.
        command: who writes: "predict", "evaluate", "embed features.npy". Two places of one command in one folder
            have two names.
        makes: the files, relative to the folder. A name with a `*` stands for all that match, as "checkpoints/*.pt".
        inputs: files and folders that are read; no output may be one of them or lie among them.
        whole: the folder belongs to this command alone, as a run folder does.
        again: remove what an earlier call of this command left, before anything is written.
        keep: names, as in `makes`, that `again` leaves.
        adopt: files that match are this command's, of a version that kept no list.
        flag: with which the user names another place.

    Raises UserError where a file is in the way that this program did not make, that another command made or that was
    changed since; where an output would be an input; and where another process is writing.
    """
    planned = [folder / name for name in makes if "*" not in name]
    refuse_inputs([folder] if whole else planned, inputs, flag=flag)
    _refuse_parts({folder} if whole else {(folder / name).parent for name in makes}, command, flag=flag)
    require_writable(folder, flag=flag)
    refusal = f"{folder}: another run is writing there ({{holder}}). Wait until it ends, or give another {flag}."
    with locks.held(folder / _lock_name(command, whole=whole), refusal=refusal):
        if whole:
            refuse_owned(folder, command, flag=flag)
        before = _entries(folder).get(command)
        if before is None and (adopt or (whole and _unlisted_owner(folder) is not None)):
            before = Entry(version="", whole=whole, files=dict.fromkeys(makes))
        earlier = _unchanged(folder, before)
        _refuse_foreign(folder, makes, earlier, before, flag=flag)
        if again:
            kept = {name: earlier[name] for name in present(folder, keep) if name in earlier}
            _remove(folder, earlier.keys() - kept.keys())
            earlier = kept
        _enter(folder, command, Entry(version=_version(), whole=whole, files={**earlier, **dict.fromkeys(makes)}))
        try:
            yield
        except BaseException:
            if not whole:  # a whole folder is gone on with, and may get any of its files
                _enter_made(folder, command, makes, earlier, whole=whole)
            raise
        stale = set(present(folder, earlier)) - set(present(folder, makes))
        if _remove(folder, stale):
            shown = ", ".join(sorted(stale)[:_SHOWN]) + (" ..." if len(stale) > _SHOWN else "")
            print(f"{folder}: removed {counted(len(stale), 'file')} of an earlier call: {shown}", file=sys.stderr)
        _enter_made(folder, command, makes, {}, whole=whole)


def refuse_inputs(outputs: Iterable[Path], inputs: Iterable[Path], *, flag: str = "--out") -> None:
    """Raise UserError where a file or folder to be written is one that is read, or lies in a folder that is read."""
    read = {Path(os.path.realpath(each)): each for each in inputs}
    for output in outputs:
        real = Path(os.path.realpath(output))
        if real in read:
            raise UserError(f"{flag}: {output} is read, and would be written over. Name another place with {flag}.")
        for above in real.parents:
            if above in read and above.is_dir():
                raise UserError(
                    f"{flag}: {output} lies in {read[above]}, which is read: what is written there would count as data "
                    f"the next time. Name a place outside of it with {flag}."
                )


def extend(folder: Path, names: Sequence[str]) -> None:
    """List more files with those of the command that a whole folder belongs to, before they are written.

    Raises UserError where such a file is there and not listed. A folder of a version that kept no list stays as it is.
    """
    for command, entry in _entries(folder).items():
        if entry.whole:
            for name in set(present(folder, names)) - set(present(folder, entry.files)):
                raise UserError(f"{folder / name}: not made by this program, so it is not written over. Rename it.")
            _enter(folder, command, replace(entry, files={**entry.files, **dict.fromkeys(names)}))


def present(folder: Path, names: Iterable[str]) -> list[str]:
    """The files of these names that are there, those with a `*` spelt out."""
    found = []
    for name in names:
        if "*" in name:
            found += [each.relative_to(folder).as_posix() for each in folder.glob(name) if not each.is_dir()]
        elif os.path.lexists(folder / name):
            found.append(name)
    return sorted(set(found))


def made_below(folder: Path, command: str) -> set[Path]:
    """The files that a command made in a folder and below, as the lists there say."""
    made: set[Path] = set()
    for manifest in folder.rglob(MANIFEST):
        entry = _entries(manifest.parent).get(command)
        made |= {manifest.parent / name for name in (present(manifest.parent, entry.files) if entry else ())}
    return made


def owner(folder: Path) -> str | None:
    """The command that a whole folder belongs to, "pretrain" or "evaluate"; None: it belongs to none."""
    listed = [command for command, entry in _entries(folder).items() if entry.whole]
    return listed[0] if listed else _unlisted_owner(folder)


def _unlisted_owner(folder: Path) -> str | None:
    """The same of a folder of a version that kept no list, by the files that each command is known by."""
    for name, keys, known in (
        ("card.json", {"licence", "added"}, "zoo add"),
        ("recipe.json", {"recipe", "data"}, "pretrain"),
        ("result.json", {"protocol", "schema"}, None),
        ("import.json", {"format", "sha256"}, "import"),
    ):
        with contextlib.suppress(UserError):
            raw = read_json(folder / name)
            if isinstance(raw, dict) and keys <= raw.keys():
                return known or ("pretrain" if raw["protocol"] == "pretrain" else "evaluate")
    for log in (folder / "metrics.jsonl", *folder.glob("grid/*/metrics.jsonl")):
        if any("kind" in row for row in read_metrics(log)[:1]):
            return "evaluate"  # a training that was stopped; its checkpoints say which
    return None


def ended(folder: Path, command: str) -> bool:
    """False where the last call of a command was cut short, so that its files are made again unasked."""
    entry = _entries(folder).get(command)
    return entry is None or entry.whole or None not in entry.files.values()


def refuse_owned(folder: Path, command: str, *, flag: str = "--out") -> None:
    """Raise UserError where a whole folder belongs to another command."""
    other = owner(folder)
    if other is not None and other != command:
        raise UserError(
            f"{folder}: holds what `simsiam {other}` made, and `simsiam {command}` writes nothing over it. Give "
            f"another {flag}."
        )


def _refuse_parts(places: Iterable[Path], command: str, *, flag: str) -> None:
    """Raise UserError where a folder to write to is part of what another command made, as checkpoints are."""
    for place in places:
        real = Path(os.path.realpath(place))
        for above in real.parents:
            for other, entry in _entries(above).items():
                parts = {name.split("/")[0] for name in entry.files if "/" in name}
                if entry.whole and other != command and real.relative_to(above).parts[0] in parts:
                    raise UserError(
                        f"{flag}: {place} belongs to what `simsiam {other}` made in {above}. Name another place with "
                        f"{flag}."
                    )


def _refuse_foreign(
    folder: Path, makes: Sequence[str], earlier: dict[str, str | None], before: Entry | None, *, flag: str
) -> None:
    known = set(present(folder, before.files)) if before is not None else set()
    for name in present(folder, makes):
        if name not in earlier:
            why = "was changed since it was written" if name in known else "was not made by this command"
            raise UserError(
                f"{folder / name}: is there already and {why}, so it is not written over. Move it away, or give "
                f"another {flag}."
            )


def _unchanged(folder: Path, entry: Entry | None) -> dict[str, str | None]:
    """The files of an earlier call that are as it left them."""
    if entry is None:
        return {}
    found: dict[str, str | None] = {}
    for name in present(folder, entry.files):
        digest = entry.files.get(name)
        if digest is None or digest == _digest(folder / name):
            found[name] = digest
    return found


def _remove(folder: Path, names: Iterable[str]) -> bool:
    """Remove files, and the folders that this leaves empty; whether there were any."""
    gone = [folder / name for name in names]
    for file in gone:
        file.unlink(missing_ok=True)
    for file in gone:
        for above in file.parents:
            if above == folder or folder not in above.parents:
                break
            with contextlib.suppress(OSError):  # it holds other files
                above.rmdir()
    return bool(gone)


def _digest(file: Path) -> str | None:
    try:
        return file_digest(file)
    except OSError:  # a link to nothing, or no right to read it
        return None


def _entries(folder: Path) -> dict[str, Entry]:
    """The list in a folder; empty where there is none, or one that cannot be read."""
    try:
        raw: Any = read_json(folder / MANIFEST)
        return {command: Entry(**entry) for command, entry in raw["made"].items()}
    except (UserError, OSError, KeyError, TypeError, AttributeError):
        return {}


def _enter(folder: Path, command: str, entry: Entry) -> None:
    with locks.held(folder / f"{MANIFEST}.lock"):
        made = {**_entries(folder), command: entry}
        write_json(
            folder / MANIFEST,
            {
                "about": "What simsiam made here. Files that are not listed are never written over or removed.",
                "made": {name: asdict(each) for name, each in made.items()},
            },
        )


def _enter_made(folder: Path, command: str, makes: Sequence[str], left: dict[str, str | None], *, whole: bool) -> None:
    made = {name: None if whole else _digest(folder / name) for name in present(folder, makes)}
    _enter(folder, command, Entry(version=_version(), whole=whole, files={**left, **made}))


def _lock_name(command: str, *, whole: bool) -> str:
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in command)
    return ".simsiam.lock" if whole else f".simsiam-{plain}.lock"


def _version() -> str:
    return versions()["simsiam"]
