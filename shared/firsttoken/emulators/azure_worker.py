"""Drive Microsoft's own Python runtime for Azure Functions inside this process, without the .NET host.

``azure-functions-runtime`` is the engine that Azure's worker loads. It takes five requests as objects of the
worker's protobuf messages; the transport around it is not published, so `Message` stands in for those
messages. Indexing, the decoding of triggers, the streaming web server and its request pairing are all
Microsoft's code.

The engine keeps its state in module globals: one function app per process. Its ``HttpCoordinator`` never
forgets a request (in Azure, too), so `Worker.forget` drops what it holds once a call is over.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import azure_functions_runtime as engine
import msgspec
from azure_functions_runtime.http_v2 import http_coordinator
from msgspec import Struct

from firsttoken.emulators.child import EmulatorError


class Message:
    """A protobuf message: fields that were not given read as empty."""

    fields: ClassVar[tuple[str, ...]] = ()
    """The members of the message's one-of group."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> str:
        """Return the default of a field that was not given."""
        # The engine asks for this name to find out whether it holds a message or the module of all messages.
        if name.startswith("__") or name == "TypedData":
            raise AttributeError(name)
        return ""

    def WhichOneof(self, _group: str) -> str | None:  # noqa: N802 - protobuf's own name
        """Return the member of the one-of group that is set."""
        return next((name for name in self.fields if name in self.__dict__), None)


class TypedData(Message):
    """A value on its way to a binding."""

    fields = ("string", "bytes", "json", "http", "int", "double")


class _ParameterBinding(Message):
    fields = ("data",)


class _StatusResult(Message):
    Failure: ClassVar[int] = 0
    Success: ClassVar[int] = 1


class _BindingInfo(Message):
    out: ClassVar[int] = 1
    inout: ClassVar[int] = 2
    undefined: ClassVar[int] = 0


_PLAIN = (
    "FunctionLoadResponse",
    "FunctionMetadataResponse",
    "InvocationResponse",
    "RpcException",
    "RpcFunctionMetadata",
    "RpcHttp",
    "RpcRetryOptions",
    "WorkerInitResponse",
    "WorkerMetadata",
)
_MESSAGES = SimpleNamespace(
    **dict.fromkeys(_PLAIN, Message),
    TypedData=TypedData,
    ParameterBinding=_ParameterBinding,
    StatusResult=_StatusResult,
    BindingInfo=_BindingInfo,
)


class Function(Struct, frozen=True):
    """One indexed function: ``trigger`` is its trigger binding as function.json would hold it."""

    name: str
    id: str
    trigger: dict[str, Any]


class Outcome(Struct, frozen=True):
    """How an invocation ended; ``error`` is empty when it succeeded."""

    error: str = ""
    trace: str = ""


class Worker:
    """The engine with one function app in it."""

    def __init__(self) -> None:
        self.functions: dict[str, Function] = {}
        self.http_uri = ""

    async def start(self, root: Path) -> None:
        """Index the function app in ``root`` and start Microsoft's web server for it.

        Raises `EmulatorError` with the engine's own words when the app cannot be indexed.
        """
        sys.path.insert(0, str(root))
        engine.start_threadpool_executor()
        init = SimpleNamespace(capabilities={}, function_app_directory=str(root))
        response = await engine.worker_init_request(_request(worker_init_request=init))
        if response.result.status != _StatusResult.Success:
            failure = response.result.exception
            message = (
                f"{root / 'function_app.py'} cannot be indexed: {failure.message}\n{failure.stack_trace}"
            )
            raise EmulatorError(message.rstrip())
        self.http_uri = response.capabilities.get("HttpUri", "")
        metadata = await engine.functions_metadata_request(None)
        for item in metadata.function_metadata_results or ():
            bindings = [msgspec.json.decode(raw) for raw in item.raw_bindings]
            trigger = next(binding for binding in bindings if binding["type"].endswith("Trigger"))
            self.functions[item.name] = Function(item.name, item.function_id, trigger)

    async def invoke_http(
        self, function: Function, invocation: str, *, method: str, url: str, route: dict[str, str]
    ) -> Outcome:
        """Run an HTTP function; it meets its request, proxied to `http_uri`, by the id ``invocation``."""
        request = Message(
            method=method,
            url=url,
            headers={},
            params=route,
            query={},
            body=TypedData(bytes=b""),
            identities=[],
        )
        return await self._invoke(function, invocation, TypedData(http=request), {})

    async def invoke(
        self, function: Function, invocation: str, data: str | bytes, metadata: dict[str, Any]
    ) -> Outcome:
        """Run a function that is not an HTTP one, with the trigger's ``data`` and ``metadata``."""
        if function.trigger["type"] == "timerTrigger":
            typed = TypedData(json=data)
        else:
            typed = TypedData(string=data) if isinstance(data, str) else TypedData(bytes=data)
        return await self._invoke(
            function, invocation, typed, {key: _typed(value) for key, value in metadata.items()}
        )

    @staticmethod
    def forget(invocation: str) -> None:
        """Drop what the engine remembers of an HTTP invocation that is over."""
        # The engine has no call for it.
        http_coordinator._context_references.pop(invocation, None)  # noqa: SLF001

    async def _invoke(
        self, function: Function, invocation: str, data: TypedData, metadata: dict[str, TypedData]
    ) -> Outcome:
        call = SimpleNamespace(
            invocation_id=invocation,
            function_id=function.id,
            input_data=[_ParameterBinding(name=function.trigger["name"], data=data)],
            trigger_metadata=metadata,
            trace_context=SimpleNamespace(trace_parent="", trace_state="", attributes={}),
            retry_context=SimpleNamespace(retry_count=0, max_retry_count=0, exception=None),
        )
        response = await engine.invocation_request(_request(invocation_request=call))
        if response.result.status == _StatusResult.Success:
            return Outcome()
        failure = response.result.exception
        return Outcome(error=failure.message or "failed", trace=failure.stack_trace)


def stop_worker() -> None:
    """Stop the engine's threads."""
    with contextlib.suppress(RuntimeError):
        engine.stop_threadpool_executor()


def _request(**content: Any) -> SimpleNamespace:
    return SimpleNamespace(
        name="", request=SimpleNamespace(**content), properties={"host": "127.0.0.1", "protos": _MESSAGES}
    )


def _typed(value: object) -> TypedData:
    return (
        TypedData(string=value)
        if isinstance(value, str)
        else TypedData(json=msgspec.json.encode(value).decode())
    )
