"""Forms with a file, read strictly; and what ``/v1/files`` refuses."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from support import Answer, ask, make_app

from firsttoken.api.multipart import read_form
from firsttoken.errors import RequestError
from firsttoken.settings import Batch

TYPE = "multipart/form-data; boundary=B"


def form(*parts: tuple[str, bytes], boundary: str = "B") -> bytes:
    """A form of parts: what is behind `form-data` in the head, and the content."""
    written = [
        f"--{boundary}\r\nContent-Disposition: form-data{head}\r\n\r\n".encode() + content + b"\r\n"
        for head, content in parts
    ]
    return b"".join(written) + f"--{boundary}--\r\n".encode()


FILE = ('; name="file"; filename="in.jsonl"', b"{}\n")
PURPOSE = ('; name="purpose"', b"batch")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"\r\n",
        b"\r\n\r\n",
        b"-B--B",
        b"a\r\n--",
        b"\r\n--C--\r\n",
        os.urandom(4096).replace(b"--B", b""),
    ],
    ids=range(8),
)
def test_content_comes_out_as_it_went_in(content: bytes) -> None:
    """Any bytes but the boundary stay as they are, whatever lines they look like."""
    read = read_form(TYPE, form(('; name="file"; filename="a b.jsonl"', content), PURPOSE))
    assert bytes(read["file"].content) == content
    assert read["file"].filename == "a b.jsonl"
    assert (bytes(read["purpose"].content), read["purpose"].filename) == (b"batch", None)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ('multipart/form-data; boundary="a b"', "a b"),
        ("Multipart/Form-Data;boundary=----x1", "----x1"),
        ("multipart/form-data; charset=utf-8; boundary=B", "B"),
    ],
)
def test_boundaries(content_type: str, boundary: str) -> None:
    """A boundary may be quoted, and stand behind other parameters."""
    assert bytes(read_form(content_type, form(FILE, boundary=boundary))["file"].content) == b"{}\n"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", form(FILE)),
        ("multipart/form-data", form(FILE)),
        ("multipart/form-data; boundary=", form(FILE)),
        (f"multipart/form-data; boundary={'x' * 71}", form(FILE, boundary="x" * 71)),
        (TYPE, b""),
        (TYPE, b"preamble\r\n" + form(FILE)),
        (TYPE, form(FILE)[:-6]),
        (TYPE, form(FILE, FILE)),
        (TYPE, form(("", b"x"))),
        (TYPE, form(('; name=""', b"x"))),
        (TYPE, form(('; name="a', b"x"))),
        (TYPE, form(('; name="a"\r\ncontent-transfer-encoding: base64', b"x"))),
        (TYPE, form(('; name="a"\r\ncontent-disposition: form-data; name="b"', b"x"))),
        (TYPE, form(('; name="a"\r\nnonsense', b"x"))),
        (TYPE, form((f'; name="{"a" * 9000}"', b"x"))),
        (TYPE, form(*[(f'; name="{n}"', b"x") for n in range(40)])),
        (TYPE, b"--B\r\nno head\r\n--B--"),
        (TYPE, b"--Bx" + form(FILE)[3:]),
    ],
    ids=range(18),
)
def test_what_is_no_form_is_refused(content_type: str, body: bytes) -> None:
    """Nothing is guessed: a form that is cut, doubled, encoded or misnamed is an error that says so."""
    with pytest.raises(RequestError, match="expected"):
        read_form(content_type, body)


def upload(body: bytes, content_type: str = TYPE, **own: Any) -> Answer:
    async def asked() -> Answer:
        app = make_app(batch=Batch(**own))
        try:
            return await ask(app, body, path="/v1/files", headers={"content-type": content_type})
        finally:
            await app.gateway.aclose()

    return asyncio.run(asked())


EXPIRY = '; name="expires_after[{}]"'


@pytest.mark.parametrize(
    ("parts", "status", "param"),
    [
        ([FILE, PURPOSE], 200, None),
        ([PURPOSE], 400, "file"),
        ([('; name="file"', b"{}"), PURPOSE], 400, "file"),
        ([('; name="file"; filename="x"', b""), PURPOSE], 400, "file"),
        ([('; name="file"; filename="x"', b"x" * 3000), PURPOSE], 400, "file"),
        ([FILE], 400, "purpose"),
        ([FILE, ('; name="purpose"', b"vision")], 400, "purpose"),
        (
            [FILE, PURPOSE, (EXPIRY.format("anchor"), b"created_at"), (EXPIRY.format("seconds"), b"3600")],
            200,
            None,
        ),
        ([FILE, PURPOSE, (EXPIRY.format("seconds"), b"3600")], 400, "expires_after"),
        (
            [FILE, PURPOSE, (EXPIRY.format("anchor"), b"created_at"), (EXPIRY.format("seconds"), b"60")],
            400,
            "expires_after",
        ),
    ],
)
def test_uploads(parts: list[tuple[str, bytes]], status: int, param: str | None) -> None:
    """An upload has a file of some bytes within the limit, and the purpose `batch`; it may say its end."""
    answer = upload(form(*parts), max_file_bytes=2048)
    assert answer.status == status
    if status == 200:
        said = answer.json()
        assert (said["filename"], said["bytes"], said["object"]) == ("in.jsonl", 3, "file")
        assert said["expires_at"] - said["created_at"] == (3600 if len(parts) > 2 else 2_592_000)
    else:
        assert answer.json()["error"]["param"] == param


def test_a_body_beyond_the_limit_is_not_kept() -> None:
    """What is larger than a file may be is refused while it arrives."""
    assert (
        upload(form(('; name="file"; filename="x"', b"x" * 200_000), PURPOSE), max_file_bytes=2048).status
        == 413
    )


def test_names_of_files_are_without_folders() -> None:
    """Only the last part of a name is kept."""
    answer = upload(form(('; name="file"; filename="../../etc/in.jsonl"', b"{}"), PURPOSE))
    assert answer.json()["filename"] == "in.jsonl"


def test_too_many_files_are_refused() -> None:
    """A tenant's files are bounded: the next one is refused until one is deleted."""

    async def asked() -> None:
        app = make_app(batch=Batch(max_files=2))
        body, headers = form(FILE, PURPOSE), {"content-type": TYPE}
        try:
            made = [await ask(app, body, path="/v1/files", headers=headers) for _ in range(3)]
            assert [answer.status for answer in made] == [200, 200, 400]
            assert made[2].json()["error"]["code"] == "too_many_files"
            path = f"/v1/files/{made[0].json()['id']}"
            assert (await ask(app, method="DELETE", path=path)).json()["deleted"] is True
            assert (await ask(app, body, path="/v1/files", headers=headers)).status == 200
        finally:
            await app.gateway.aclose()

    asyncio.run(asked())


def test_large_files_are_kept_in_parts() -> None:
    """A file of several megabytes comes back byte by byte, and a HEAD tells its length."""
    content = os.urandom(2_500_000)

    async def asked() -> None:
        app = make_app()
        body, headers = form(('; name="file"; filename="x"', content), PURPOSE), {"content-type": TYPE}
        try:
            made = (await ask(app, body, path="/v1/files", headers=headers)).json()
            path = f"/v1/files/{made['id']}/content"
            answer = await ask(app, method="GET", path=path)
            assert answer.body == content
            assert len(answer.pieces) > 3
            head = await ask(app, method="HEAD", path=path)
            assert (head.body, head.headers["content-length"]) == (b"", "2500000")
        finally:
            await app.gateway.aclose()

    asyncio.run(asked())
