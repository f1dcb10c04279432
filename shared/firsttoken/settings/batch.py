"""Batches of calls that are answered within a day (docs/batch.md), and the files that hold them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from firsttoken.settings.base import Positive, Section

_Endpoint = Annotated[str, Meta(pattern="^(https?://[^/?#]+.*)?$")]


class BedrockBatch(Section, frozen=True):
    """What batch inference of a Bedrock provider needs besides it: a bucket in its region, and a role.

    ``role`` is the ARN of the service role that reads and writes the bucket.
    """

    bucket: Annotated[str, Meta(min_length=3)]
    role: Annotated[str, Meta(pattern="^arn:aws[^:]*:iam::.*:role/.+")]
    prefix: Annotated[str, Meta(pattern="^([A-Za-z0-9_-]+/)*$")] = "firsttoken-batch/"
    minimum: Annotated[int, Meta(ge=1)] = 100
    """Records that a job must have (a quota of the account); fewer are answered one by one."""
    endpoint: _Endpoint = ""
    s3_endpoint: _Endpoint = ""


class Batch(Section, frozen=True):
    """Times in seconds. Sizes in bytes."""

    providers: list[str] = []
    """Those whose own batch API is used (openai, azure, gemini, bedrock); for others we do the work."""
    bedrock: dict[str, BedrockBatch] = {}
    """For each provider of kind bedrock among them."""
    max_lines: Annotated[int, Meta(ge=1, le=50_000)] = 50_000
    max_file_bytes: Annotated[int, Meta(ge=1024, le=200 * 1024 * 1024)] = 16 * 1024 * 1024
    max_line_bytes: Annotated[int, Meta(ge=1024)] = 1024 * 1024
    max_files: Annotated[int, Meta(ge=1, le=1000)] = 500
    """Of one tenant; more are refused until some were deleted or have expired."""
    max_open: Annotated[int, Meta(ge=1, le=500)] = 100
    """Batches at work, of all tenants together."""
    max_open_tenant: Annotated[int, Meta(ge=1, le=500)] = 25
    """Batches at work, of one tenant."""
    window: Positive = 86_400.0
    """A batch that has no end by then expires; what was answered stays."""
    keep: Positive = 2_592_000.0
    """How long batches and files can be fetched."""
    tick_seconds: Positive = 20.0
    """After so long a tick begins no further piece of work."""
    poll_seconds: Positive = 5.0
    """Between two ticks of ``firsttoken serve``."""
    call_seconds: Positive = 60.0
    """For one answer, where lines are answered within a tick."""
    concurrency: Annotated[int, Meta(ge=1, le=256)] = 8
    """Lines of one batch that are answered at once within a tick."""
    queued: Annotated[int, Meta(ge=1, le=10_000)] = 500
    """Lines of one batch that wait in the queue as jobs at once."""
    lease: Positive = 60.0
    """After so long without a sign of its worker, another one takes a batch."""
