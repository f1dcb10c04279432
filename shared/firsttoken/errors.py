"""Every error the product raises on purpose, as one tree.

::

    FirstTokenError
    ├── ConfigError                  stops at start: names file, key and expected form
    ├── RequestError                 400  the client must change its request
    │   ├── UnsupportedFieldError    400  this target cannot honour a field
    │   ├── AuthenticationError      401  no key, or an unknown one
    │   ├── IdempotencyError         422  an idempotency key was used before, with another request
    │   ├── NotFoundError            404  no such path or model
    │   ├── MethodNotAllowedError    405
    │   ├── BodyTooLargeError        413
    │   └── UnsupportedEncodingError 415
    ├── DeadlineError                504  our own time for the call is used up
    ├── UpstreamError                502  the target failed; the client did nothing wrong
    │   ├── UpstreamConnectError     502  no connection: name, network or TLS
    │   ├── UpstreamTimeoutError     504  too slow: connect, first byte, or gap between chunks
    │   ├── UpstreamProtocolError    502  the target does not speak HTTP, SSE or JSON as agreed
    │   ├── UpstreamClosedError      502  the answer was cut before it was complete
    │   ├── UpstreamRateLimitError   429  the target asks to wait
    │   ├── UpstreamRefusedError     4xx  the target says that the request is wrong
    │   ├── UpstreamAuthError        502  the target refuses *our* credentials
    │   └── UnavailableError         503  not called: open breaker, cool-down, full queue, or no target left
    ├── StoreError                   503  the store cannot be had; nobody but the store's users sees it
    ├── QueueError                   503  the queue cannot be had: the call did not become a job
    ├── DeferredError                202  no answer now: the call has become a job
    └── InternalError                500  a defect of ours

Each error knows the HTTP ``status`` to answer with, whether the same target may be tried again
(``retryable``), whether another target may answer (``failover``) and, in ``str(error)``, what the client may
be told.
"""

from __future__ import annotations


class FirstTokenError(Exception):
    """Base of the tree. ``str(error)`` is safe to show to a client: no secret, no internal address."""

    status = 500
    type = "server_error"
    code: str | None = None
    param: str | None = None
    retryable = False
    failover = False
    retry_after: float | None = None
    """Seconds that the other side asked us to wait, or None."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        if param is not None:
            self.param = param
        if code is not None:
            self.code = code


class ConfigError(FirstTokenError):
    """The configuration is wrong; raised at start, never while serving."""


class RequestError(FirstTokenError):
    """The request is wrong: the same request would fail again anywhere."""

    status = 400
    type = "invalid_request_error"


class UnsupportedFieldError(RequestError):
    """The chosen target cannot honour a field of the request."""

    code = "unsupported_field"
    failover = True


class AuthenticationError(RequestError):
    """No API key, or one that is not known here."""

    status = 401
    code = "invalid_api_key"


class IdempotencyError(RequestError):
    """An idempotency key was used before with another request."""

    status = 422
    code = "idempotency_key_reused"


class NotFoundError(RequestError):
    """No such path, or no such model."""

    status = 404


class MethodNotAllowedError(RequestError):
    """The path exists, the method on it does not."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class BodyTooLargeError(RequestError):
    """The request's body is larger than the configured limit."""

    status = 413
    code = "body_too_large"


class UnsupportedEncodingError(RequestError):
    """The request's body is compressed; only plain bodies are read."""

    status = 415
    code = "unsupported_encoding"


class DeadlineError(FirstTokenError):
    """The time for the whole call is used up (the client's, the configured or the platform's)."""

    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"
    retryable = True


class UpstreamError(FirstTokenError):
    """The target failed in a way that the client did not cause."""

    status = 502
    type = "upstream_error"
    code: str | None = "upstream_error"
    retryable = True
    failover = True

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, param=param, code=code)
        if status is not None:
            self.status = status
        self.retry_after = retry_after


class UpstreamConnectError(UpstreamError):
    """No connection to the target: name lookup, network or TLS."""

    code = "upstream_unreachable"


class UpstreamTimeoutError(UpstreamError):
    """The target was too slow to connect, to send its first byte, or between two chunks."""

    status = 504
    code = "upstream_timeout"


class UpstreamProtocolError(UpstreamError):
    """The target's bytes are not the HTTP, SSE or JSON that was agreed on."""

    code = "upstream_protocol"


class UpstreamClosedError(UpstreamError):
    """The target closed the connection before its answer was complete."""

    code = "upstream_closed"


class UpstreamRateLimitError(UpstreamError):
    """The target asks to wait (429): a cool-down, not a failure."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class UpstreamRefusedError(UpstreamError):
    """The target says that the request is wrong: passed on to the client with the target's own words."""

    status = 400
    type = "invalid_request_error"
    code: str | None = None
    retryable = False
    failover = False


class UpstreamAuthError(UpstreamError):
    """The target refuses our credentials: an operator must act, the client cannot."""

    code = "upstream_auth"
    retryable = False


class UnavailableError(UpstreamError):
    """A target was not called, because that would not help now.

    Its breaker is open, it cools down, or the queue for it is full; ``retry_after`` says how long.
    """

    status = 503
    code = "target_unavailable"


class StoreError(FirstTokenError):
    """The store cannot be had, or did not answer in time. Whoever uses a store goes on without it."""

    status = 503
    code = "store_unavailable"
    retryable = True


class QueueError(FirstTokenError):
    """The queue cannot be had, or did not answer in time."""

    status = 503
    code = "queue_unavailable"
    retryable = True


class DeferredError(FirstTokenError):
    """There is no answer now: the call has become the job ``id``, and this is not a failure."""

    status = 202
    code = "deferred"

    def __init__(self, message: str, *, id: str) -> None:  # noqa: A002 - what it is called everywhere
        super().__init__(message)
        self.id = id


class InternalError(FirstTokenError):
    """A defect of ours. The client gets the request id, the log gets the traceback."""

    code = "internal_error"
