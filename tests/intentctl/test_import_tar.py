"""Archives that torch-model-archiver makes with ``--archive-format tgz``."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intentctl.output import EXIT_FAILED
from intentctl.torchserve.tar_archive import TarArchive
from serving.domain.errors import InvalidModelFile, ModelIncomplete
from tests.intentctl.archives import loaded
from tests.intentctl.test_import import MEMBERS, imported, models
from tests.serving.refusals import refused

__all__ = ["models"]
MOST = 64 << 20


def tarred(members: Mapping[str, bytes], *others: tarfile.TarInfo, folder: str = "./") -> bytes:
    """Return an archive of the members, as torch-model-archiver writes it, and of ``others``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        top = tarfile.TarInfo(folder.rstrip("/"))
        top.type = tarfile.DIRTYPE
        archive.addfile(top)
        for name, content in members.items():
            member = tarfile.TarInfo(folder + name)
            member.size = len(content)
            # As os.stat gives it; the archiver writes it to an extended header.
            member.mtime = 1_700_000_000.5
            archive.addfile(member, io.BytesIO(content))
        for other in others:
            archive.addfile(other, io.BytesIO(bytes(other.size)))
    return buffer.getvalue()


def info(name: str, kind: bytes = tarfile.REGTYPE, **attributes: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    for key, value in attributes.items():
        setattr(member, key, value)
    return member


@pytest.mark.parametrize("folder", ["./", "", "banking/", "./banking/"])
def test_an_archive_in_gzip_is_imported_wherever_its_files_are(folder: str, models: Path, tmp_path: Path) -> None:
    path = tmp_path / "model-from-tar.tar.gz"
    path.write_bytes(tarred(MEMBERS, folder=folder))
    result = imported(path, models, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["id"] == "from-tar"
    assert len(loaded(models, "from-tar").labels) == 2


def test_the_id_is_the_one_that_the_archive_gives_where_the_file_has_none(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "any.tgz"
    path.write_bytes(tarred(MEMBERS))
    assert imported(path, models).exit_code == 0
    assert [folder.name for folder in models.iterdir()] == ["weather"]


HOSTILE: dict[str, tuple[bytes, str]] = {
    "not tar": (gzip.compress(b"hello" * 200), "the archive"),
    "cut off": (tarred(MEMBERS)[:-100], "damaged"),
    "a link": (tarred(MEMBERS, info("./x", tarfile.SYMTYPE, linkname="/etc/passwd")), "a link"),
    "a hard link": (tarred(MEMBERS, info("./x", tarfile.LNKTYPE, linkname="/etc/passwd")), "a link"),
    "a link as the model": (
        tarred(
            {name: data for name, data in MEMBERS.items() if name != "model.pth"},
            info("./model.pth", tarfile.SYMTYPE, linkname="/dev/zero"),
        ),
        "a link",
    ),
    "a device": (tarred(MEMBERS, info("./x", tarfile.CHRTYPE)), "a link"),
    "a pipe": (tarred(MEMBERS, info("./x", tarfile.FIFOTYPE)), "a link"),
    "leaves upwards": (tarred(MEMBERS, info("./../x")), "outside of its folder"),
    "leaves to the root": (tarred(MEMBERS, info("/etc/passwd")), "outside of its folder"),
    "leaves by an extended header": (tarred(MEMBERS, info("x", pax_headers={"path": "/x"})), "outside of its folder"),
    "holes": (
        tarred(MEMBERS, info("./x", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 40)})),
        "the archive",
    ),
    "two of one name": (tarred(MEMBERS, info("./model.pth")), "two members with the same name"),
    "two of one name, written otherwise": (tarred(MEMBERS, info("model.pth")), "two members with the same name"),
    "too many members": (tarred(MEMBERS, *(info(f"./{number}") for number in range(5000))), "far more members"),
    "a large extended header": (tarred(MEMBERS, info("x", pax_headers={"comment": "x" * 100_000})), "far more members"),
    "another compression of nothing": (b"\x1f\x8b" + bytes(30), "damaged"),
    "no model": (tarred({"handler.py": b""}), "has no"),
    "a manifest that is too large": (
        tarred({**MEMBERS, "manifest.json": b" " * (8 << 20) + MEMBERS["manifest.json"]}),
        "manifest.json of the archive is larger than",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_or_damaged_is_refused_in_plain_words(name: str, models: Path, tmp_path: Path) -> None:
    data, message = HOSTILE[name]
    path = tmp_path / "hostile.tar.gz"
    path.write_bytes(data)
    result = imported(path, models, "--model-id", "hostile")
    assert (result.exit_code, result.stdout) == (EXIT_FAILED, ""), result.output
    assert message in result.stderr
    assert list(models.iterdir()) == []


def test_an_archive_is_inflated_no_further_than_its_bound() -> None:
    with refused(InvalidModelFile, match="larger than"):
        TarArchive(gzip.compress(bytes(MOST * 4), 9), MOST)


WHOLE = gzip.decompress(tarred(MEMBERS))


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_a_changed_archive_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for position, value in changes:
        data[position] = value
    try:
        archive = TarArchive(gzip.compress(bytes(data), 1), MOST)
        archive.read(dict.fromkeys(MEMBERS, MOST))
    except (InvalidModelFile, ModelIncomplete):
        return
