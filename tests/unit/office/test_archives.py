import io
import tarfile
from pathlib import Path

import pytest

from local.archives import extract


def pack(*members: tuple[str, bytes, str]) -> tarfile.TarFile:
    """An archive of (name, type, content or link's target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o4755 if kind == tarfile.REGTYPE else 0o777
            if kind == tarfile.REGTYPE:
                member.size = len(content)
            else:
                member.linkname = content
            archive.addfile(member, io.BytesIO(content.encode()))
    buffer.seek(0)
    return tarfile.open(fileobj=buffer)


def test_files_directories_and_links_inside_are_extracted_as_plain_files(tmp_path: Path) -> None:
    directory = tmp_path / "adapter"
    extract(
        pack(
            ("./", tarfile.DIRTYPE, ""),
            ("./blobs/weights", tarfile.REGTYPE, "numbers"),
            ("adapter_model.safetensors", tarfile.SYMTYPE, "blobs/weights"),
            ("deep/copy", tarfile.LNKTYPE, "./blobs/weights"),
            ("deep/../config.json", tarfile.REGTYPE, "{}"),
            ("empty", tarfile.DIRTYPE, ""),
        ),
        directory,
    )
    files = {path.relative_to(directory).as_posix(): path.read_text() for path in directory.rglob("*") if path.is_file()}
    assert files == {"blobs/weights": "numbers", "adapter_model.safetensors": "numbers", "deep/copy": "numbers", "config.json": "{}"}
    assert (directory / "empty").is_dir()
    assert not [path for path in directory.rglob("*") if path.is_symlink()]
    assert (directory / "config.json").stat().st_mode & 0o7777 == 0o755
    assert (directory / "config.json").stat().st_nlink == 1


@pytest.mark.parametrize(
    "members",
    [
        [("../escape", tarfile.REGTYPE, "x")],
        [("deep/../../escape", tarfile.REGTYPE, "x")],
        [("../adapter-beside/escape", tarfile.REGTYPE, "x")],
        [("{outside}/escape", tarfile.REGTYPE, "x")],
        [("escape", tarfile.SYMTYPE, "{outside}/secret")],
        [("escape", tarfile.SYMTYPE, "../secret")],
        [("escape", tarfile.LNKTYPE, "../secret")],
        [("door", tarfile.SYMTYPE, ".."), ("door/escape", tarfile.REGTYPE, "x")],
        [("inside", tarfile.DIRTYPE, ""), ("door", tarfile.SYMTYPE, "inside"), ("door/escape", tarfile.REGTYPE, "x")],
        [("escape", tarfile.SYMTYPE, "escape")],
        [("escape", tarfile.CHRTYPE, "")],
        [("escape", tarfile.FIFOTYPE, "")],
    ],
    ids=lambda members: f"{members[-1][0]} {members[0][1].decode()} {members[0][2]}".strip(),
)
def test_nothing_lands_outside_and_no_link_or_device_is_made(tmp_path: Path, members: list[tuple[str, bytes, str]]) -> None:
    (tmp_path / "secret").write_text("secret")
    located_members = [(name.format(outside=tmp_path), kind, content.format(outside=tmp_path)) for name, kind, content in members]
    with pytest.raises(tarfile.ReadError, match=r"escape|door"):
        extract(pack(*located_members), tmp_path / "adapter")
    assert {path.name for path in tmp_path.rglob("*")} <= {"secret", "adapter", "inside"}


def test_a_file_cut_short_is_no_archive(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("weights")
        member.size = 5_000
        archive.addfile(member, io.BytesIO(b"x" * 5_000))
    with pytest.raises(tarfile.ReadError), tarfile.open(fileobj=io.BytesIO(buffer.getvalue()[:2_000])) as cut:
        extract(cut, tmp_path)
